"""hyperpd cluster update."""

from __future__ import annotations

from pathlib import Path

import click

from hyperpd.cli import output
from hyperpd.cli.cluster.options import (
    again,
    dry_run_option,
    file_argument,
    json_option,
    wait_options,
    yes_option,
)


@click.command()
@file_argument
@dry_run_option
@yes_option
@wait_options
@json_option
def update(file: Path, dry_run: bool, yes: bool, no_wait: bool, timeout_min: float, as_json: bool) -> None:
    """Make the cluster what FILE says; shows the difference first. What cannot be changed is named, and then nothing
    is. Tags that FILE does not have stay, and so do threads per core, minimum, interface and image where it is silent
    on them. All else is as in FILE: groups, labels, taints, volumes and health checks that it does not have go."""
    from hyperpd.cli.cluster import show
    from hyperpd.cli.cluster.plan import change_of
    from hyperpd.cluster import Cluster, load
    from hyperpd.errors import CloudError

    spec = load(file)
    planned = Cluster.plan(spec)
    changes = planned.changes
    if changes is None:
        raise CloudError(f"there is no cluster {spec.name}; hyperpd cluster create makes it")
    if not as_json:
        show.lines(changes.lines() or ["nothing differs"])
    if dry_run:
        if as_json:
            output.document({"sent": False, "requests": show.call_documents(planned.calls)})
        else:
            show.calls(planned.calls)
        return
    if changes.request or changes.tags:
        question = f"Change {spec.name} so?"
        if changes.deleted:
            question = f"Delete {', '.join(changes.deleted)} with all on their nodes, and change {spec.name} so?"
        output.confirm(question, yes, as_json)
    cluster, tell = Cluster(spec.name, region=spec.region), show.progress(as_json)
    with output.remains(f"cut off; run it again and it goes on where it was: {output.typed()}"):
        changes = cluster.update(spec, tell)
    status = None
    if changes.request and not no_wait:
        with output.remains(f"the cluster goes on without you: {again('watch', spec.name, cluster)}"):
            status = cluster.wait(tell, expect=changes.counts, timeout_s=timeout_min * 60)
    if as_json:
        told = show.plain([change_of(one) for one in changes.changes])
        sent = changes.request is not None or bool(changes.tags)
        output.document({"sent": sent, "changes": told, "cluster": show.document(status) if status else None})
    elif status:
        output.line(f"{spec.name} is in service with its nodes")

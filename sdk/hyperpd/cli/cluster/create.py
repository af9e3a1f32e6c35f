"""hyperpd cluster create."""

from __future__ import annotations

from pathlib import Path

import click

from hyperpd.cli import output
from hyperpd.cli.cluster.options import again, dry_run_option, file_argument, json_option, wait_options


@click.command()
@file_argument
@dry_run_option
@click.option("--no-preflight", is_flag=True, help="Do not look at the account first for what stands in the way.")
@wait_options
@json_option
def create(file: Path, dry_run: bool, no_preflight: bool, no_wait: bool, timeout_min: float, as_json: bool) -> None:
    """Create the cluster of FILE: role, bucket and lifecycle files as far as they are missing, then the cluster.

    First it checks what plan checks, and makes nothing where a problem stands in the way. Run again after it was cut
    off, it goes on where it was; run again after all went well, it does nothing.
    """
    from hyperpd.cli.cluster import show
    from hyperpd.cluster import Cluster, load

    spec = load(file)
    if dry_run:
        found = Cluster.plan(spec)
        if as_json:
            output.document({"sent": False, "requests": show.call_documents(found.calls)})
        else:
            show.calls(found.calls)
        return
    tell = show.progress(as_json)
    with output.remains(f"cut off; run it again and it goes on where it was: {output.typed()}"):
        cluster = Cluster.create(spec, tell, check=not no_preflight)
    if no_wait:
        status = None
    else:
        with output.remains(f"the cluster goes on without you: {again('watch', spec.name, cluster)}"):
            status = cluster.wait(tell, timeout_s=timeout_min * 60, new=True)
    if as_json:
        output.document({"sent": True, "cluster": show.document(status) if status else {"name": spec.name}})
    elif status:
        output.line(f"{spec.name} is in service with its nodes")
    else:
        output.line(f"go on with: {again('watch', spec.name, cluster)}")

"""hyperpd cluster patch."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict

import click

from hyperpd.cli import output
from hyperpd.cli.cluster.options import (
    again,
    cluster_argument,
    json_option,
    named,
    region_option,
    timeout_option,
    yes_option,
)


@click.command()
@cluster_argument
@click.option("--group", "groups", multiple=True, help="This group; may be repeated. Default: all with an update.")
@click.option("--release", help="Release of HyperPod's image, as in 1.2.3; default: the newest.")
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Nodes of a group at once.")
@click.option("--force", is_flag=True, help="Also all nodes of a role at once: its requests fail meanwhile.")
@region_option
@yes_option
@timeout_option
@json_option
def patch(
    cluster: str,
    groups: tuple[str, ...],
    release: str | None,
    batch: int,
    force: bool,
    region: str | None,
    yes: bool,
    timeout_min: float,
    as_json: bool,
) -> None:
    """Bring the software of CLUSTER up to date: prefill, then decode, then the rest, and never two groups at once.
    Workers on EKS are evicted from the nodes of a group before, where other nodes take them.
    Never all healthy nodes of a role at once (a group of one, or --batch as large as it), unless by --force; on EKS a
    group without a role that hyperpd knows (label hyperpd.io/role, or its name) counts as one.

    Nodes are set up anew, and what is on their root volumes is lost. HyperPod takes an update back without a word
    where nodes do not come up: the release before and after tells, and then this fails.
    """
    from hyperpd.cli.cluster import show
    from hyperpd.deploy import connect, drain

    found = named(cluster, region)
    on_slurm = found.status().orchestrator == "slurm"
    output.confirm(f"Patch {found.name}, {batch} nodes of a group at once?", yes, as_json)
    with (
        output.remains(f"what was sent goes on: {again('watch', cluster, found)}"),
        nullcontext() if on_slurm else connect.hyperpod(found.name, aws=found.aws) as api,
    ):
        done = found.patch(
            groups,
            show.progress(as_json),
            drain=drain.drain_of(api, force=force, timeout_s=timeout_min * 60) if api else drain.on_slurm,
            release=release,
            batch=batch,
            force=force,
            timeout_s=timeout_min * 60,
        )
    if as_json:
        output.document([asdict(one) for one in done])

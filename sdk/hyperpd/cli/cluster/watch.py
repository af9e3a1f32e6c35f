"""hyperpd cluster watch."""

from __future__ import annotations

import click

from hyperpd.cli import output
from hyperpd.cli.cluster.options import (
    again,
    cluster_argument,
    json_option,
    named,
    region_option,
    timeout_option,
)


@click.command()
@cluster_argument
@region_option
@timeout_option
@json_option
def watch(cluster: str, region: str | None, timeout_min: float, as_json: bool) -> None:
    """Follow CLUSTER until it is in service with its nodes, or has failed; then the causes are shown.

    Shows what moves, the time that passed, and events where the cluster has them (continuous: true). How long it
    should take is not said: AWS publishes no number.
    """
    from hyperpd.cli.cluster import show

    found = named(cluster, region)
    with output.remains(f"the cluster goes on without you: {again('watch', cluster, found)}"):
        status = found.wait(show.progress(as_json), timeout_s=timeout_min * 60)
    if as_json:
        output.document(show.document(status))
    else:
        output.line(f"{status.name} is in service with its nodes")

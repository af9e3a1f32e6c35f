"""hyperpd cluster events."""

from __future__ import annotations

from dataclasses import asdict

import click

from hyperpd.cli import output
from hyperpd.cli.cluster.options import cluster_argument, json_option, named, region_option

_LEVELS = ("Info", "Warn", "Error")


@click.command()
@cluster_argument
@click.option("--group", default="", help="This group's alone.")
@click.option("--node", default="", help="This node's alone.")
@click.option("--level", type=click.Choice(_LEVELS), default="Info", show_default=True, help="This level and above.")
@click.option("--since", type=click.DateTime(), help="Later than this, in UTC.")
@region_option
@json_option
def events(cluster: str, group: str, node: str, level: str, since: object, region: str | None, as_json: bool) -> None:
    """List what happened to CLUSTER, the oldest first. HyperPod keeps events of clusters with continuous: true."""
    from datetime import UTC, datetime

    from hyperpd.cli.cluster import show

    after = since.replace(tzinfo=UTC) if isinstance(since, datetime) else None
    found = named(cluster, region).events(after=after, group=group, node=node)
    wanted = _LEVELS[_LEVELS.index(level) :]
    found = [event for event in found if event.level in wanted or not event.level]
    if as_json:
        output.document(show.plain([asdict(event) for event in found]))
        return
    for event in found:
        output.line(event.line())
    if not found:
        output.line("no such events")

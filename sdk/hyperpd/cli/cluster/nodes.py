"""hyperpd cluster nodes."""

from __future__ import annotations

from dataclasses import asdict

import click

from hyperpd.cli import output
from hyperpd.cli.cluster.options import cluster_argument, json_option, named, region_option


@click.command()
@cluster_argument
@click.option("--group", help="This group's alone.")
@region_option
@json_option
def nodes(cluster: str, group: str | None, region: str | None, as_json: bool) -> None:
    """List the nodes of CLUSTER."""
    from hyperpd.cli.cluster import show

    found = named(cluster, region).nodes(group)
    if as_json:
        output.document(show.plain([{**asdict(node), "healthy": node.healthy} for node in found]))
        return
    rows = [
        [node.group, node.id or node.logical_id, node.instance_type, node.status, node.release or "-", node.message]
        for node in found
    ]
    output.table(["GROUP", "NODE", "TYPE", "STATUS", "RELEASE", "MESSAGE"], rows)

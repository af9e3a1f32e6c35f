"""hyperpd cluster status."""

from __future__ import annotations

import click

from hyperpd.cli import output
from hyperpd.cli.cluster.options import cluster_argument, json_option, named, region_option


@click.command()
@cluster_argument
@region_option
@json_option
def status(cluster: str, region: str | None, as_json: bool) -> None:
    """Show CLUSTER and its groups as they are now."""
    from hyperpd.cli.cluster import show

    found = named(cluster, region).status()
    if as_json:
        output.document(show.document(found))
    else:
        show.status(found)

"""hyperpd cluster repair."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, cast

import click

from hyperpd.cli import output
from hyperpd.cli.cluster.options import (
    again,
    cluster_argument,
    dry_run_option,
    json_option,
    named,
    region_option,
    wait_options,
)

if TYPE_CHECKING:
    from hyperpd.cluster.repair import Action


@click.command()
@cluster_argument
@click.argument("nodes", nargs=-1)
@click.option("--replace", "action", flag_value="replace", help="Another machine; what is on its disks is lost.")
@click.option("--reboot", "action", flag_value="reboot", help="The same machine, started again.")
@click.option("--unhealthy", is_flag=True, help="All nodes that are unhealthy, instead of NODES.")
@click.option("--force", is_flag=True, help="Also the last healthy node of a role: its requests fail meanwhile.")
@region_option
@dry_run_option
@wait_options
@json_option
def repair(
    cluster: str,
    nodes: tuple[str, ...],
    action: str | None,
    unhealthy: bool,
    force: bool,
    region: str | None,
    dry_run: bool,
    no_wait: bool,
    timeout_min: float,
    as_json: bool,
) -> None:
    """Reboot or replace NODES of CLUSTER, and wait until their groups are whole again.

    Never the last healthy node of a role (prefill, decode), unless by --force.
    """
    from hyperpd.cli.cluster import show

    if action is None:
        raise click.UsageError("give --reboot or --replace")
    if bool(nodes) == unhealthy:
        raise click.UsageError("name nodes (hyperpd cluster nodes lists them), or give --unhealthy")
    found, tell = named(cluster, region), show.progress(as_json)
    found.aws.dry = dry_run
    with output.remains(f"what was sent goes on: {again('nodes', cluster, found)}"):
        done = found.repair(
            nodes,
            cast("Action", action),
            tell,
            force=force,
            wait=not (no_wait or dry_run),
            timeout_s=timeout_min * 60,
        )
    if dry_run and not as_json:
        show.calls(found.aws.withheld)
    elif as_json:
        told = show.plain([asdict(node) for node in done])
        output.document({"action": action, "nodes": told, "requests": show.call_documents(found.aws.withheld)})
    elif done:
        output.line(f"{action}: {len(done)} nodes")

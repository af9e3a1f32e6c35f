"""hyperpd status: the fleets of this machine, or the deployments of a cluster."""

from __future__ import annotations

import click

from hyperpd.cli import output
from hyperpd.cli.fleet import fleets
from hyperpd.cli.place import Where, place_options
from hyperpd.errors import RecipeError


@click.command()
@click.argument("name", required=False)
@place_options
@click.option("--all", "every", is_flag=True, help="Also fleets that were stopped.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def status(name: str | None, where: Where, every: bool, as_json: bool) -> None:
    """Show what runs on this machine, and what failed; with a cluster, its deployments, and what holds them up.

    NAME: one fleet, or one deployment by its recipe's name or its namespace.
    """
    if where.given:
        _deployments(name, where, as_json)
        return
    states = {fleet.name: fleet.state() for fleet in fleets()}
    if name and name not in states:
        what = f"no fleet of this machine has this name; it has {', '.join(states) or 'none'}"
        raise RecipeError(name, [f"{what}. For a deployment give --cluster, or --context"])
    states = {
        one: state
        for one, state in states.items()
        if name == one or (not name and (every or state["phase"] != "stopped"))
    }
    if as_json:
        output.document(states)
        return
    if not states:
        output.line("nothing runs; try: hyperpd up")
    for one, state in states.items():
        output.line(f"{one}: {state['phase']}  {state['url']}  recipe digest {state['recipe_digest'][:12]}")
        for worker in state["workers"]:
            output.line(f"  {worker['name']}: {worker['state']}  pid {worker['pid']}  {worker['url']}  {worker['log']}")
        if state["error"]:
            for line in state["error"].splitlines():
                output.line("  " + line)


def _deployments(name: str | None, where: Where, as_json: bool) -> None:
    from hyperpd.cli import deployed
    from hyperpd.deploy import revision
    from hyperpd.deploy.deployment import Deployment

    api = where.connect()
    tell = deployed.noted
    histories = [revision.find(api, name, tell)] if name else list(revision.deployments(api, tell).values())
    found = [Deployment(api, history[-1]).status() for history in histories]
    if as_json:
        output.document([deployed.status_document(one) for one in found])
        return
    if not found:
        output.line(f"nothing is deployed; try: hyperpd deploy RECIPE{where.flags()}")
    for one, history in zip(found, histories, strict=True):
        deployed.status(one, where)
        if name:
            for older in reversed(history[:-1]):
                output.line(f"  before: {older.line()}")

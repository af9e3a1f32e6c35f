"""hyperpd status: the fleets of this machine."""

from __future__ import annotations

import click

from hyperpd.cli import output
from hyperpd.cli.fleet import fleets


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def status(as_json: bool) -> None:
    """Show what runs on this machine."""
    states = {fleet.name: fleet.state() for fleet in fleets()}
    if as_json:
        output.document(states)
        return
    if not states:
        output.line("nothing was started here; try: hyperpd up")
    for name, state in states.items():
        output.line(f"{name}: {state['phase']}  {state['url']}  recipe digest {state['recipe_digest'][:12]}")
        for worker in state["workers"]:
            output.line(f"  {worker['name']}: {worker['state']}  pid {worker['pid']}  {worker['url']}  {worker['log']}")
        if state["error"]:
            output.line("  " + state["error"].splitlines()[0])

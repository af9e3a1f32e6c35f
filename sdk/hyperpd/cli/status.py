"""hyperpd status: the fleets of this machine."""

from __future__ import annotations

import click

from hyperpd.cli import output
from hyperpd.cli.fleet import fleets


@click.command()
@click.option("--all", "every", is_flag=True, help="Also fleets that were stopped.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def status(every: bool, as_json: bool) -> None:
    """Show what runs on this machine, and what failed."""
    states = {fleet.name: fleet.state() for fleet in fleets()}
    states = {name: state for name, state in states.items() if every or state["phase"] != "stopped"}
    if as_json:
        output.document(states)
        return
    if not states:
        output.line("nothing runs; try: hyperpd up")
    for name, state in states.items():
        output.line(f"{name}: {state['phase']}  {state['url']}  recipe digest {state['recipe_digest'][:12]}")
        for worker in state["workers"]:
            output.line(f"  {worker['name']}: {worker['state']}  pid {worker['pid']}  {worker['url']}  {worker['log']}")
        if state["error"]:
            for line in state["error"].splitlines():
                output.line("  " + line)

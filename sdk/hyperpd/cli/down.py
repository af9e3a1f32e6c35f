"""hyperpd down: stop a fleet of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hyperpd.cli import completion, output
from hyperpd.cli.fleet import fleets
from hyperpd.errors import RecipeError

if TYPE_CHECKING:
    from hyperpd.cli.documents.machine import Down


@click.command()
@click.argument("name", required=False, shell_complete=completion.fleet)
@click.option("--all", "every", is_flag=True, help="Stop all fleets.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document; progress to standard error.")
def down(name: str | None, every: bool, as_json: bool) -> None:
    """Stop a fleet and wait until it is gone."""
    running = [fleet for fleet in fleets() if fleet.running()]
    names = [fleet.name for fleet in running]
    if name and name not in names:
        raise RecipeError(
            name, [f"no fleet of this name runs; running: {', '.join(names) or 'none'}; try: hyperpd status"]
        )
    say = output.note if as_json else output.line
    if not running:
        say("nothing runs; hyperpd status --all shows what ran")
    if len(running) > 1 and not (name or every):
        raise RecipeError("hyperpd down", [f"several run: {', '.join(names)}; name one, or --all"])
    stopped: Down = {"stopped": []}
    with output.remains("a fleet that was told goes on ending: hyperpd status"):
        for fleet in running:
            if name in (None, fleet.name):
                say(f"{fleet.name}: stopping …")
                fleet.stop()
                say(f"{fleet.name}: stopped")
                stopped["stopped"].append(fleet.name)
    if as_json:
        output.document(stopped)

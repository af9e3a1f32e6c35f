"""hyperpd down: stop a fleet of this machine."""

from __future__ import annotations

import click

from hyperpd.cli import output
from hyperpd.cli.fleet import fleets
from hyperpd.errors import RecipeError


@click.command()
@click.argument("name", required=False)
@click.option("--all", "every", is_flag=True, help="Stop all fleets.")
def down(name: str | None, every: bool) -> None:
    """Stop a fleet and wait until it is gone."""
    running = [fleet for fleet in fleets() if fleet.running()]
    names = [fleet.name for fleet in running]
    if name and name not in names:
        raise RecipeError(name, [f"no fleet of this name runs; running: {', '.join(names) or 'none'}"])
    if not running:
        output.line("nothing runs")
        return
    if len(running) > 1 and not (name or every):
        raise RecipeError("hyperpd down", [f"several run: {', '.join(names)}; name one, or --all"])
    for fleet in running:
        if name in (None, fleet.name):
            output.line(f"{fleet.name}: stopping …")
            fleet.stop()
            output.line(f"{fleet.name}: stopped")

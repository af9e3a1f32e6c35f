"""hyperpd calibrate: the figures that a gateway predicts by, measured through a fleet that runs."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hyperpd.cli import completion, output
from hyperpd.cli.fleet import LocalFleet, fleets
from hyperpd.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hyperpd.cli.documents.routing import Calibrated, CalibrationPlanned
    from hyperpd.plan.calibrate import Figure, Plan
    from hyperpd.recipe import RecipeFile

_LEAST_ROUNDS = 6  # fewer tell nothing with 95 % confidence


@click.command()
@click.argument("fleet", required=False, shell_complete=completion.fleet)
@click.option("--url", help="A gateway in place of a fleet of this machine, with its --recipe.")
@click.option("--recipe", shell_complete=completion.recipe, help="What runs there; default: the fleet's, if shipped.")
@click.option(
    "--model-folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="With the model's config.json, where the recipe's own folder is on another machine.",
)
@click.option("--key-file", type=click.Path(exists=True, dir_okay=False), help="File with an operator's API key.")
@click.option("--rounds", type=click.IntRange(_LEAST_ROUNDS, 1000), help="Samples of each prompt length; default: 9.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Default: NAME.calibration.yaml.")
@click.option("--force", is_flag=True, help="Replace the file where it exists.")
@click.option("--dry-run", is_flag=True, help="Say what would be sent, and send nothing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document; progress to standard error.")
def calibrate(
    fleet: str | None,
    url: str | None,
    recipe: str | None,
    model_folder: Path | None,
    key_file: str | None,
    rounds: int | None,
    out: Path | None,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Measure what a gateway predicts by, through a fleet that runs, and write it as a recipe's gateway.calibration.

    FLEET: of this machine; default: the one that runs. It sends prompts of random tokens, which no cache holds, by
    both paths, and takes one or two minutes on an idle fleet; other requests would be in the figures.
    """
    from hyperpd import api_key
    from hyperpd.plan import calibrate as library

    if fleet and url:
        raise click.UsageError("FLEET and --url both name a gateway; give one of them")
    if url and not recipe:
        raise click.UsageError("--url: give the --recipe that runs there, too")
    if url:
        from hyperpd.recipe import load

        file = load(recipe or "")
    else:
        url, file = _of_this_machine(fleet, recipe)
    path = out or Path(f"{file.recipe.name}.calibration.yaml")
    if problems := _cannot_write(path, force):
        raise RecipeError(str(path), problems)
    planned = library.plan(file.recipe, model_folder, rounds or library.ROUNDS)
    key = api_key.read(Path(key_file)) if key_file else None
    if dry_run:
        _show_plan(planned, url, file, path, as_json)
        return
    with output.remains(f"{path} is not written"):
        figures = asyncio.run(_measured(planned, url, file, key))
    at = _now()
    path.write_text(library.text(figures, _about(planned, url, file, at)))
    if as_json:
        output.document(_document(planned, url, file, path, at, figures))
        return
    output.table(("figure", "median", "95 % confidence", "samples"), [_row(name, one) for name, one in figures.items()])
    for name, one in figures.items():
        if one.value is None:
            more = "; more --rounds may tell" if one.samples else ""
            output.line(f"{name}: not measurable here: {one.why}{more}")
    output.line(f"{path}: take gateway.calibration into the recipe")


def _of_this_machine(name: str | None, recipe: str | None) -> tuple[str, RecipeFile]:
    """URL and recipe of a fleet that runs here. Raises RecipeError where it is not clear which, or not its recipe."""
    from hyperpd.recipe import load

    running = [one.name for one in fleets() if one.running()]
    there = f"there run {', '.join(running) or 'none'}"
    if name and name not in running:
        raise RecipeError(name, [f"no fleet of this name runs on this machine; {there}. For others give --url"])
    if not name and len(running) != 1:
        raise RecipeError("hyperpd calibrate", [f"name the fleet, or its gateway by --url; on this machine {there}"])
    state = LocalFleet(name or running[0]).state()
    file = load(recipe or state["recipe"])
    if file.digest != state["recipe_digest"]:
        what = f"{file.path} is not the recipe that this fleet runs (digest {state['recipe_digest'][:12]})"
        raise RecipeError(name or running[0], [f"{what}; give that one as --recipe"])
    return str(state["url"]), file


def _cannot_write(path: Path, force: bool) -> list[str]:
    """Known before two minutes of measuring."""
    import os

    there = os.path.exists(path)
    if there and not force:
        return ["is there already; give --force to replace it, or --out another"]
    if not path.parent.is_dir():
        return [f"{path.parent} is no folder; make it first"]
    at, rights = (path, os.W_OK) if there else (path.parent, os.W_OK | os.X_OK)
    return [] if os.access(at, rights) else [f"{at} is not yours to write; give --out another place"]


async def _measured(planned: Plan, url: str, file: RecipeFile, key: str | None) -> Mapping[str, Figure]:
    import time

    from hyperpd.plan import calibrate as library
    from hyperpd.plan.probe import Probe

    probe = Probe(url, planned.vocabulary, api_key=key)
    try:
        await probe.check(file.recipe.model.name, file.recipe.model.max_len_tokens)
        rounds, gaps_s = await library.measure(planned, probe.ask, output.note, time.monotonic)
    finally:
        await probe.close()
    return library.fit(planned, rounds, gaps_s)


def _about(planned: Plan, url: str, file: RecipeFile, at: str) -> list[str]:
    from hyperpd import __version__
    from hyperpd.versions import installed

    engine = installed()
    return [
        f"Measured by hyperpd calibrate at {at} through {url}",
        f"recipe {file.recipe.name}, digest {file.digest}",
        f"hyperpd {__version__}" + (f", {engine} on the machine that measured" if engine else ""),
        f"first tokens of prompts of {planned.short_tokens:,} and {planned.long_tokens:,} tokens,"
        f" {planned.rounds} of each by each path; step_s: {planned.streams} streams at once",
    ]


def _show_plan(planned: Plan, url: str, file: RecipeFile, path: Path, as_json: bool) -> None:
    document: CalibrationPlanned = {
        "recipe": file.recipe.name,
        "recipe_digest": file.digest,
        "url": url,
        "short_tokens": planned.short_tokens,
        "long_tokens": planned.long_tokens,
        "streams": planned.streams,
        "requests": planned.requests,
        "prompt_tokens": planned.tokens,
        "file": str(path),
    }
    if as_json:
        output.document(document)
        return
    paths = "prefilled where they decode, and elsewhere" if planned.remote else "prefilled where they decode"
    output.line(f"to {url}: {planned.requests} requests with {planned.tokens:,} prompt tokens")
    output.line(f"  {planned.rounds} rounds of {planned.short_tokens:,} and {planned.long_tokens:,} tokens, {paths}")
    output.line(f"  batches of {planned.streams} streams at once; the first round and the first batch warm up")
    output.line(f"then {path} is written; nothing was sent")


def _document(
    planned: Plan, url: str, file: RecipeFile, path: Path, at: str, figures: Mapping[str, Figure]
) -> Calibrated:
    return {
        "recipe": file.recipe.name,
        "recipe_digest": file.digest,
        "url": url,
        "measured_at": at,
        "short_tokens": planned.short_tokens,
        "long_tokens": planned.long_tokens,
        "streams": planned.streams,
        "figures": {name: asdict(one) for name, one in figures.items()},  # type: ignore[misc]
        "file": str(path),
    }


def _row(name: str, one: Figure) -> tuple[str, str, str, str]:
    between = "-" if one.low is None or one.high is None else f"{one.low:.4g} to {one.high:.4g}"
    return name, "-" if one.value is None else f"{one.value:.5g}", between, str(one.samples or "-")


def _now() -> str:
    from datetime import UTC, datetime

    return datetime.now(UTC).isoformat(timespec="seconds")

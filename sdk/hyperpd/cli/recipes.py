"""hyperpd recipes: the shipped ones; show, check and compare recipes, offline."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import click

from hyperpd.cli import completion, output
from hyperpd.cli.commands import Group
from hyperpd.errors import HyperpdError

if TYPE_CHECKING:
    from hyperpd.capacity import Capacity
    from hyperpd.cli.documents import recipe as documents
    from hyperpd.recipe import Recipe, RecipeFile


@click.group(cls=Group, invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_context
def recipes(context: click.Context, as_json: bool) -> None:
    """List the shipped recipes, or show, check and compare recipes. Nothing is downloaded or started."""
    if context.invoked_subcommand:
        return
    from hyperpd.recipe import load, shipped

    files = [load(name) for name in shipped()]
    if as_json:
        output.document([_facts(file) for file in files])
        return
    output.table(("recipe", "workers", "description"), [(f.recipe.name, f.recipe.layout, _line(f)) for f in files])


@recipes.command()
@click.argument("recipe", shell_complete=completion.recipe)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def show(recipe: str, as_json: bool) -> None:
    """What RECIPE takes: machines, memory, KV cache, price; and how its KV cache moves."""
    from hyperpd.recipe import load

    file = load(recipe)
    if as_json:
        output.document(_facts(file))
        return
    for line in [f"{file.recipe.name} (recipe digest {file.digest})", *_lines(file.recipe)]:
        output.line(line)


@recipes.command()
@click.argument("recipe", nargs=-1, required=True, shell_complete=completion.recipe)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def check(recipe: tuple[str, ...], as_json: bool) -> None:
    """Whether each RECIPE loads and fits its machines, and what was not checked; every problem of all of them.

    A target may refuse more: hyperpd render says so.
    """
    failed: list[HyperpdError] = []
    results: list[documents.Checked] = []
    for name in recipe:
        try:
            capacity = _check(name)
        except HyperpdError as error:
            failed.append(error)
            results.append({"recipe": name, "ok": False, "problem": str(error)})
            if not as_json:
                output.error(str(error))
            continue
        unchecked = [*capacity.unchecked, "vLLM's own options (engine:), which only the engine knows"]
        results.append({"recipe": name, "ok": True, "unchecked": unchecked, "notes": list(capacity.notes)})
        if not as_json:
            rest = [f"not checked: {what}" for what in unchecked]
            rest += [f"note: {what}" for what in capacity.notes]
            output.line("\n  ".join([f"ok {name}", *rest]))
    if as_json:
        output.document(results)
    if failed:
        sys.exit(max(error.exit_code for error in failed))


@recipes.command()
@click.argument("left", shell_complete=completion.recipe)
@click.argument("right", shell_complete=completion.recipe)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def diff(left: str, right: str, as_json: bool) -> None:
    """What RIGHT says that LEFT does not, field by field, and whether their workers could exchange KV."""
    from dataclasses import asdict

    from hyperpd.recipe import load

    files = [load(name) for name in (left, right)]
    before, after = (dict(_flat(file.recipe.model_dump(mode="json", exclude_defaults=True))) for file in files)
    changed = {
        path: (before.get(path), after.get(path))
        for path in [*before, *(path for path in after if path not in before)]
        if before.get(path) != after.get(path)
    }
    prints = [file.recipe.fingerprint(next(iter(file.recipe.roles()))) for file in files]
    left_id, right_id = (asdict(one.identity) for one in prints)
    unlike = [field for field in left_id if left_id[field] != right_id[field]]
    if as_json:
        document: documents.Diff = {
            "changed": {path: {"left": old, "right": new} for path, (old, new) in changed.items()},
            "same_engine_digest": not unlike,
        }
        output.document(document)
        return
    for path, (old, new) in changed.items():
        output.line(f"{path}: {_shown(old)} → {_shown(new)}")
    if not changed:
        output.line("the same, comments aside")
    apart = f"different ({', '.join(unlike)}): their workers do not exchange KV with each other"
    output.line(f"engine digest: {apart if unlike else 'equal; TP, block size and layout have to fit besides'}")


@recipes.command()
def schema() -> None:
    """The JSON Schema of a recipe, for editors; recipes/recipe.schema.json is this."""
    from hyperpd.recipe import schema as recipe_schema

    output.document(recipe_schema())


def _check(name: str) -> Capacity:
    from hyperpd import capacity
    from hyperpd.engine import launch
    from hyperpd.environment import model_path
    from hyperpd.placement import place
    from hyperpd.recipe import load

    recipe = load(name).recipe
    taken = capacity.check(recipe)
    for worker in place(recipe, capacity.machines(recipe)).workers:
        launch(recipe, worker, model_path=model_path(recipe))
    return taken


def _line(file: RecipeFile) -> str:
    return file.recipe.description or "-"


def _facts(file: RecipeFile) -> documents.Recipe:
    from dataclasses import asdict

    from hyperpd import capacity

    recipe = file.recipe
    return {
        "name": recipe.name,
        "description": recipe.description,
        "recipe_digest": file.digest,
        "layout": recipe.layout,
        "recipe": recipe.model_dump(mode="json", exclude_defaults=True),
        "capacity": cast("Capacity", asdict(capacity.check(recipe))),
        "usd_per_hour": _price(recipe)[0],
    }


def _lines(recipe: Recipe) -> Iterator[str]:
    from hyperpd import capacity, fabric

    taken = capacity.check(recipe)
    if recipe.description:
        yield recipe.description
    yield f"model       {recipe.model.name}, up to {recipe.model.max_len_tokens:,} tokens, {recipe.model.dtype}"
    if not recipe.aggregated:
        plan = fabric.plan(recipe.fabric, recipe.accelerator)
        lease = f"lease {recipe.kv_transfer.lease_s} s, blocks of {recipe.kv_transfer.block_size_tokens} tokens"
        yield f"KV          {recipe.fabric}: {plan.connector} over {plan.backend}, {lease}"
    if taken.kv_bytes_per_token:
        ms = (taken.s_per_1000_tokens or 0) * 1000
        moved = f", {ms:.2f} ms for 1,000 tokens at line rate" if ms else ""
        yield f"KV cache    {taken.kv_bytes_per_token:,} bytes per token{moved} (computed)"
    for role, spec in recipe.roles().items():
        parallel = spec.parallel
        sizes = {"TP": parallel.tensor, "PP": parallel.pipeline, "DP": parallel.data}
        wide = " ".join(f"{name}{size}" for name, size in sizes.items() if size > 1 or name == "TP")
        apart = f" over {parallel.nodes} nodes" if parallel.nodes > 1 else ""
        where = f" on {spec.instance_type}" if spec.instance_type else ""
        yield f"{role:<11} {spec.replicas} x {wide}{' EP' if parallel.expert else ''}{apart}{where}"
        if (memory := next((part.memory for part in taken.roles if part.role == role), None)) is not None:
            yield (
                f"{'':<11} per GPU: {memory.weights_gib:.1f} GiB weights, {memory.reserve_gib:.1f} reserve (estimate),"
                f" {memory.kv_gib:.1f} KV cache"
            )
            each = "each data-parallel rank holds" if parallel.data > 1 else "each worker holds"
            yield (
                f"{'':<11} {each} the KV cache of {memory.rank_tokens:,} tokens, in sequences of"
                f" {recipe.model.max_len_tokens:,}: {memory.sequences} at once"
            )
    if taken.nodes:
        yield f"takes       {taken.gpus} GPUs, {taken.nodes} nodes"
        yield f"price       {_price(recipe)[1]}"
    yield from (f"unchecked   {what}" for what in taken.unchecked)
    yield from (f"note        {what}" for what in taken.notes)


def _price(recipe: Recipe) -> tuple[float | None, str]:
    """Dollars per hour of all nodes, and how that is shown; None where a type has no price."""
    from datetime import date

    from hyperpd import capacity, prices

    nodes = capacity.instances(capacity.check(recipe))
    found = {kind: prices.reference(kind) for kind in nodes}
    today = date.today()
    parts = [f"{nodes[kind]} x {kind} {p.text(today) if p else 'has no price here'}" for kind, p in found.items()]
    if not found or None in found.values():
        return None, "; ".join(parts) or "no instance types"
    usd = sum(nodes[kind] * price.usd_per_hour for kind, price in found.items() if price)
    return usd, f"${usd:,.2f}/h in all: {'; '.join(parts)}"


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else key)
    elif value is not None:
        yield path, value


def _shown(value: Any) -> str:
    return "-" if value is None else str(value)

"""hyperpd recipes: the shipped ones; show, check and compare recipes, offline."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from hyperpd.cli import output
from hyperpd.errors import HyperpdError

if TYPE_CHECKING:
    from hyperpd.capacity import Capacity
    from hyperpd.recipe import Recipe, RecipeFile


@click.group(invoke_without_command=True)
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
@click.argument("recipe")
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
@click.argument("recipe", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def check(recipe: tuple[str, ...], as_json: bool) -> None:
    """Whether each RECIPE loads, fits its machines and can be launched; every problem of all of them."""
    failed: list[HyperpdError] = []
    results = []
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
        results.append({"recipe": name, "ok": True, "unchecked": unchecked, "notes": capacity.notes})
        if not as_json:
            rest = [f"not checked: {what}" for what in unchecked]
            rest += [f"note: {what}" for what in capacity.notes]
            output.line("\n  ".join([f"ok {name}", *rest]))
    if as_json:
        output.document(results)
    if failed:
        sys.exit(max(error.exit_code for error in failed))


@recipes.command()
@click.argument("left")
@click.argument("right")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def diff(left: str, right: str, as_json: bool) -> None:
    """What RIGHT says that LEFT does not, field by field, and whether their workers could exchange KV."""
    from hyperpd.recipe import load

    files = [load(name) for name in (left, right)]
    before, after = (dict(_flat(file.recipe.model_dump(mode="json", exclude_defaults=True))) for file in files)
    changed = {
        path: (before.get(path), after.get(path))
        for path in [*before, *(path for path in after if path not in before)]
        if before.get(path) != after.get(path)
    }
    prints = [file.recipe.fingerprint(next(iter(file.recipe.roles()))) for file in files]
    same = prints[0].identity.digest == prints[1].identity.digest
    if as_json:
        document = {path: {"left": old, "right": new} for path, (old, new) in changed.items()}
        output.document({"changed": document, "same_engine_digest": same})
        return
    for path, (old, new) in changed.items():
        output.line(f"{path}: {_shown(old)} → {_shown(new)}")
    if not changed:
        output.line("the same, comments aside")
    output.line(f"engine digest: {'equal' if same else 'different: their workers do not exchange KV with each other'}")


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


def _facts(file: RecipeFile) -> dict[str, Any]:
    from dataclasses import asdict

    from hyperpd import capacity

    recipe = file.recipe
    return {
        "name": recipe.name,
        "description": recipe.description,
        "recipe_digest": file.digest,
        "layout": recipe.layout,
        "recipe": recipe.model_dump(mode="json", exclude_defaults=True),
        "capacity": asdict(capacity.check(recipe)),
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
        moved = f", {taken.s_per_1000_tokens:.4f} s for 1,000 tokens at line rate" if taken.s_per_1000_tokens else ""
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
                f" {memory.kv_gib:.1f} KV cache: {memory.rank_tokens:,} tokens, {memory.sequences} full sequences"
            )
    if taken.nodes:
        yield f"takes       {taken.gpus} GPUs, {taken.nodes} nodes"
        yield f"price       {_price(recipe)[1]}"
    yield from (f"not checked {what}" for what in taken.unchecked)
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
    return sum(nodes[kind] * price.usd_per_hour for kind, price in found.items() if price), "; ".join(parts)


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else key)
    elif value is not None:
        yield path, value


def _shown(value: Any) -> str:
    return "-" if value is None else str(value)

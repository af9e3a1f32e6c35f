"""hyperpd targets: what a recipe can be rendered for, and what becomes of each field there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hyperpd.cli import completion, output

if TYPE_CHECKING:
    from hyperpd.cli.documents.recipe import Target


@click.command()
@click.argument("name", required=False, shell_complete=completion.target)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def targets(name: str | None, as_json: bool) -> None:
    """List the targets of hyperpd render, and fields of a recipe that not all express; with NAME, its options and
    every field."""
    from hyperpd import deploy
    from hyperpd.deploy.target import fate, leaves
    from hyperpd.recipe import Recipe

    chosen = [deploy.target(one) for one in ([name] if name else deploy.TARGETS)]
    paths = list(leaves(Recipe))
    fields = {target.NAME: {path: fate(target.FIELDS, path) for path in paths} for target in chosen}
    if as_json:
        document: dict[str, Target] = {
            target.NAME: {
                "summary": target.SUMMARY,
                "options": {
                    key: {"default": option.default, "meaning": option.description}
                    for key, option in target.Options.model_fields.items()
                },
                "fields": {p: {"fate": f.fate, "how": f.how} for p, f in fields[target.NAME].items() if f},
            }
            for target in chosen
        }
        output.document(document)
        return
    if not name:
        output.table(("target", "what it is"), [(target.NAME, target.SUMMARY) for target in chosen])
        output.line()
        fates = [(p, *(f.fate if (f := fields[target.NAME][p]) else "" for target in chosen)) for p in paths]
        rows = [one for one in fates if set(one[1:]) != {"expressed"}]
        output.table(("recipe field", *(target.NAME for target in chosen)), rows)
        output.line()
        output.line("every other field is expressed by all; hyperpd targets NAME says how, and has a target's options")
        return
    (target,) = chosen
    output.line(f"{target.NAME}: {target.SUMMARY}")
    output.line()
    options = [(key, _said(o.default), str(o.description)) for key, o in target.Options.model_fields.items()]
    output.table(("--set", "default", "meaning"), options)
    output.line()
    output.table(("recipe field", "", "how"), [(p, f.fate, f.how) for p in paths if (f := fields[target.NAME][p])])


def _said(default: object) -> str:
    """As --set takes it."""
    return "-" if default is None else str(default).lower() if isinstance(default, bool) else str(default)

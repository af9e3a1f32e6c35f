"""hyperpd schema: what a command prints for programs."""

from __future__ import annotations

import click

from hyperpd.cli import output


@click.command()
@click.argument("command", nargs=-1)
def schema(command: tuple[str, ...]) -> None:
    """Print the JSON Schema of what COMMAND prints with --json (as in: hyperpd schema cluster status).

    Without COMMAND: which commands there are. Keys stay as they are from version to version; more may come. What
    people write has schemas of its own: hyperpd recipes schema, hyperpd cluster schema.
    """
    from hyperpd.cli.documents import DOCUMENTS, json_schema
    from hyperpd.errors import RecipeError
    from hyperpd.problems import nearest

    if not command:
        for name in DOCUMENTS:
            output.line(name)
        return
    name = " ".join(command)
    if name not in DOCUMENTS:
        near = nearest(name, list(DOCUMENTS)) or "; hyperpd schema lists which do"
        raise RecipeError("hyperpd schema", [f"{name} prints no JSON{near}"])
    output.document(json_schema(name))

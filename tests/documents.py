"""Holds what a command prints by --json to its type, strictly: a key that the type does not know fails, too."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import click
from jsonschema import Draft202012Validator

from hyperpd.cli.documents import json_schema


def held(command: str, document: Any) -> Any:
    """The document as a program reads it. Fails where it is not what `hyperpd schema COMMAND` says."""
    found = json.loads(json.dumps(document))
    problems = [f"{error.json_path}: {error.message}" for error in _strict(command).iter_errors(found)]
    assert problems == [], f"hyperpd {command} --json is not what hyperpd/cli/documents says"
    return found


def holding(printed: Callable[..., None]) -> Callable[..., None]:
    """output.document, for tests: holds what it prints in place of a command's --json."""

    def document(value: Any, **how: bool) -> None:
        context = click.get_current_context(silent=True)
        if context and context.params.get("as_json"):
            held(context.command_path.partition(" ")[2], value)
        printed(value, **how)

    return document


@cache
def _strict(command: str) -> Draft202012Validator:
    schema = json_schema(command)
    for one in [schema, *schema.get("$defs", {}).values()]:
        if "properties" in one:
            one["additionalProperties"] = False
    return Draft202012Validator(schema)

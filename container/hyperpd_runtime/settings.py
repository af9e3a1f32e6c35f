"""Environment + argv → Environment: read once, every problem at once."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from hyperpd.environment import PREFIX, Environment
from hyperpd.errors import RecipeError
from hyperpd.recipe import problems

_FIELDS = tuple(Environment.model_fields)


def read(argv: Sequence[str], environ: Mapping[str, str]) -> Environment:
    """Settings of this process; argv wins over HYPERPD_* variables.

    Raises RecipeError with every unknown or unusable setting.
    """
    found: list[str] = []
    values: dict[str, str] = {}
    for key, value in environ.items():
        if key.startswith(PREFIX):
            _take(values, key.removeprefix(PREFIX).lower(), value, key, found)
    words = list(argv)
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if not name.startswith("--"):
            found.append(f"{word}: settings are --name value")
            continue
        if not equals:
            if not words:
                found.append(f"{name}: needs a value")
                continue
            value = words.pop(0)
        _take(values, name.removeprefix("--").replace("-", "_"), value, name, found)
    try:
        settings = Environment.model_validate(values)
    except ValidationError as error:
        found += [f"{problem} (HYPERPD_* or --*)" for problem in problems(error, Environment)]
    if found:
        raise RecipeError("settings", found)
    return settings


def _take(values: dict[str, str], field: str, value: str, shown: str, found: list[str]) -> None:
    if field in _FIELDS:
        values[field] = value
        return
    near = difflib.get_close_matches(field, _FIELDS, 1)
    found.append(f"{shown}: unknown" + (f"; did you mean {near[0]}?" if near else f"; known: {', '.join(_FIELDS)}"))

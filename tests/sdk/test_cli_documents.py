"""What commands print for programs stays: documents.txt has every key of every document, and its type."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hyperpd.cli.documents import DOCUMENTS, json_schema

KEPT = Path(__file__).with_name("documents.txt")


def lines(schema: dict[str, Any], definitions: dict[str, Any], path: str) -> Iterator[str]:
    """`schema`, a line for each key: its path ([] of a list, {} of a name that is not fixed) and its type."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        for one in schema["anyOf"]:
            yield from lines(one, definitions, path)
        return
    told = [repr(one) for one in schema["enum"]] if "enum" in schema else [schema.get("type", "anything")]
    yield from (f"{path}: {one}" for one in told)
    for name, inner in schema.get("properties", {}).items():
        yield from lines(inner, definitions, f"{path}.{name}")
    if isinstance(inner := schema.get("items"), dict):
        yield from lines(inner, definitions, f"{path}[]")
    if isinstance(inner := schema.get("additionalProperties"), dict):
        yield from lines(inner, definitions, f"{path}{{}}")


def test_a_key_that_was_printed_stays() -> None:
    now: dict[str, None] = {}
    for command in DOCUMENTS:
        schema = json_schema(command)
        now |= dict.fromkeys(lines(schema, schema.get("$defs", {}), command))
    kept = KEPT.read_text().splitlines()
    assert [line for line in kept if line not in now] == [], "programs read it; where it has to go, say so in CHANGELOG"
    if new := [line for line in now if line not in kept]:
        KEPT.write_text("".join(f"{line}\n" for line in now))
        pytest.fail(f"{KEPT} has these lines now, look at them and commit it: {new}")

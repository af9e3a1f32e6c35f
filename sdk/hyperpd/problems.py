"""What pydantic found wrong, as sentences a person can act on: "path: what; what to try"."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import get_origin

from pydantic import BaseModel, ValidationError


def problems(error: ValidationError, root: type[BaseModel], spelled: Mapping[str, str] | None = None) -> list[str]:
    """pydantic's findings as sentences: "path: what; what to try". spelled: pattern of a text → an example of it."""
    found = []
    for item in error.errors(include_url=False):
        location = item["loc"]
        path = ".".join(str(part) for part in location)
        block = _block(root, location[:-1])
        if item["type"] == "extra_forbidden":
            found.append(f"{path}: unknown key{nearest(str(location[-1]), list(block.model_fields) if block else [])}")
        elif item["type"] == "missing":
            found.append(f"{path}: missing; add it")
        else:
            value = "" if isinstance(item["input"], dict | BaseModel) else f" (found {item['input']!r})"
            says = item["msg"].removeprefix("Value error, ")
            field = block.model_fields.get(str(location[-1])) if block and location else None
            if item["type"] == "tuple_type":
                says = "a list is wanted, as in [a, b]"
            elif example := (spelled or {}).get(str(item.get("ctx", {}).get("pattern", ""))):
                says = f"not spelled as it has to be; as in {example}"
            elif item["type"] == "string_pattern_mismatch" and field and field.description:
                says = f"not spelled as it has to be: {field.description}"
            # What blocks demand of each other names its own fields.
            found.append(f"{path}: {says}{value}" if path else says)
    return found


def _block(root: type[BaseModel], location: Iterable[int | str]) -> type[BaseModel] | None:
    """The block at `location`, or None where there is none."""
    block, parts = root, iter(location)
    for part in parts:
        field = block.model_fields.get(str(part))
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())] if field else []
        inner = [kind for kind in candidates if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not inner:
            return None
        block = inner[0]
        if field and get_origin(field.annotation) in (dict, tuple):
            next(parts, None)  # which one of them
    return block


def nearest(key: str, known: list[str]) -> str:
    """ "; did you mean …?", or what is known; nothing when nothing is."""
    near = difflib.get_close_matches(key, known, 1)
    return f"; did you mean {near[0]}?" if near else f"; known here: {', '.join(known)}" if known else ""

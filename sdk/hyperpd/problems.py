"""What pydantic found wrong, as sentences a person can act on: "path: what; what to try"."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from pydantic import BaseModel, ValidationError


def problems(error: ValidationError, root: type[BaseModel]) -> list[str]:
    """pydantic's findings as sentences: "path: what; what to try"."""
    found = []
    for item in error.errors(include_url=False):
        location = item["loc"]
        path = ".".join(str(part) for part in location) or "(whole file)"
        if item["type"] == "extra_forbidden":
            found.append(f"{path}: unknown key{nearest(str(location[-1]), _known_keys(root, location[:-1]))}")
        elif item["type"] == "missing":
            found.append(f"{path}: missing; add it")
        else:
            value = "" if isinstance(item["input"], dict | BaseModel) else f" (found {item['input']!r})"
            found.append(f"{path}: {item['msg'].removeprefix('Value error, ')}{value}")
    return found


def _known_keys(root: type[BaseModel], location: Iterable[int | str]) -> list[str]:
    block: type[BaseModel] = root
    for part in location:
        field = block.model_fields.get(str(part))
        if field is None:
            return []
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
        inner = [kind for kind in candidates if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not inner:
            return []
        block = inner[0]
    return list(block.model_fields)


def nearest(key: str, known: list[str]) -> str:
    """ "; did you mean …?", or what is known; nothing when nothing is."""
    near = difflib.get_close_matches(key, known, 1)
    return f"; did you mean {near[0]}?" if near else f"; known here: {', '.join(known)}" if known else ""

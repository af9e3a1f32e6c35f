"""problems(service, operation, request): a request held against botocore's model of the API, strictly.

botocore's own validator looks at members, types and lower bounds; this one also at enumerations, patterns and upper
bounds, which the service refuses by, too. fields and mutations make a right request wrong in one place each.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

import botocore.session
from botocore.model import Shape

Path = tuple[str | int, ...]

# Classes that Java's patterns have and Python's lack. Letters alone have no name here: \w is a little more.
_CLASSES = {r"\p{L}": r"\w", r"\p{N}": r"\d", r"\p{Z}": r"\s"}
_KINDS: dict[str, type | tuple[type, ...]] = {
    "structure": Mapping,
    "map": Mapping,
    "list": (list, tuple),
    "string": str,
    "boolean": bool,
    "integer": int,
    "long": int,
    "float": (int, float),
    "double": (int, float),
    "timestamp": (int, float, datetime),  # on the wire a number
    "blob": (str, bytes),
}


@cache
def shape(service: str, operation: str) -> Shape:
    """What a request of the operation has to be."""
    return botocore.session.get_session().get_service_model(service).operation_model(operation).input_shape


def problems(service: str, operation: str, request: Mapping[str, Any]) -> list[str]:
    """Every problem, with the path of the member."""
    return list(_problems(request, shape(service, operation), ()))


def answer_problems(service: str, operation: str, answer: Mapping[str, Any]) -> list[str]:
    """The same for what a service answers."""
    declared = _answer_shape(service, operation)
    if declared is None:
        return ["an answer where there is none"] if answer else []
    return list(_problems(answer, declared, ()))


@cache
def _answer_shape(service: str, operation: str) -> Shape | None:
    return botocore.session.get_session().get_service_model(service).operation_model(operation).output_shape


def of_shape(service: str, name: str, value: Any) -> list[str]:
    """The same for a part of a request: one of the model's shapes by its name."""
    return list(_problems(value, _named_shape(service, name), ()))


@cache
def _named_shape(service: str, name: str) -> Shape:
    return botocore.session.get_session().get_service_model(service).shape_for(name)


def enum(service: str, name: str) -> set[str]:
    """The values that a shape knows."""
    return set(botocore.session.get_session().get_service_model(service).shape_for(name).metadata["enum"])


def _problems(value: Any, declared: Any, path: Path) -> Iterator[str]:
    where = ".".join(map(str, path)) or "(request)"
    kind = _KINDS.get(declared.type_name)
    if kind is None:
        yield f"{where}: cannot judge a {declared.type_name}"
        return
    if not isinstance(value, kind) or (isinstance(value, bool) and declared.type_name != "boolean"):
        yield f"{where}: not a {declared.type_name} (found {value!r})"
        return
    yield from (f"{where}: {wrong}" for wrong in _bounds(value, declared))
    if declared.type_name == "structure":
        yield from (f"{where}: no member {name}" for name in value.keys() - declared.members.keys())
        yield from (f"{where}: {name} is required" for name in declared.required_members if name not in value)
        for name, inner in value.items():
            if name in declared.members:
                yield from _problems(inner, declared.members[name], (*path, name))
    elif declared.type_name == "list":
        for index, inner in enumerate(value):
            yield from _problems(inner, declared.member, (*path, index))
    elif declared.type_name == "map":
        for name, inner in value.items():
            yield from _problems(name, declared.key, (*path, f"key {name}"))
            yield from _problems(inner, declared.value, (*path, name))


def _bounds(value: Any, declared: Any) -> Iterator[str]:
    said = declared.metadata
    if declared.type_name == "timestamp":
        return
    size, unit = (value, "") if isinstance(value, int | float) else (len(value), " long")
    if "min" in said and size < said["min"]:
        yield f"{size}{unit} is below {said['min']}"
    if "max" in said and size > said["max"]:
        yield f"{size}{unit} is above {said['max']}"
    if declared.type_name == "string":
        if (known := said.get("enum")) and value not in known:
            yield f"{value!r} is none of {len(known)} values"
        if (wanted := said.get("pattern")) and not pattern(wanted).fullmatch(value):
            yield f"{value!r} does not match {wanted}"


@cache
def pattern(text: str) -> re.Pattern[str]:
    """A pattern of the service, which speaks Java's language; it holds for the whole value."""
    for theirs, ours in _CLASSES.items():
        text = text.replace(theirs, ours)
    if r"\p" in text:
        raise ValueError(f"a class of Java's that is not known here: {text}")
    return re.compile(text)


@dataclass(frozen=True, slots=True)
class Mutation:
    """One wrong request: what was done, where, and the request."""

    what: str  # misspell, drop, value, type
    path: Path
    request: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.what} {'.'.join(map(str, self.path))}"


def mutations(service: str, operation: str, request: Mapping[str, Any]) -> Iterator[Mutation]:
    """Every member misspelt and of a wrong type, each required one dropped, each bounded value out of its bounds."""
    for path, declared, required in fields(request, shape(service, operation)):
        if isinstance(path[-1], str) and required is not None:
            yield _changed(
                "misspell", request, path, lambda block, key: block.update({f"{key}{key[-1] * 2}": block.pop(key)})
            )
        if required:
            yield _changed("drop", request, path, lambda block, key: block.pop(key))
        wrong = 1.5 if declared.type_name not in ("float", "double", "timestamp") else "x"
        yield _changed("type", request, path, lambda block, key, wrong=wrong: block.__setitem__(key, wrong))
        for bad in _outside(_at(request, path), declared):
            yield _changed("value", request, path, lambda block, key, bad=bad: block.__setitem__(key, bad))


def fields(value: Any, declared: Any, above: Path = ()) -> Iterator[tuple[Path, Any, bool | None]]:
    """Path, shape, and whether it is required, of everything in `value`; None: no member, but of a list or map."""
    if declared.type_name == "structure":
        for name, inner in value.items():
            yield (*above, name), declared.members[name], name in declared.required_members
            yield from fields(inner, declared.members[name], (*above, name))
    elif declared.type_name == "list":
        for index, inner in enumerate(value):
            yield (*above, index), declared.member, None
            yield from fields(inner, declared.member, (*above, index))
    elif declared.type_name == "map":
        for name in value:
            yield (*above, name), declared.value, None


def _outside(value: Any, declared: Any) -> Iterator[Any]:
    """Values that the bounds of a shape forbid."""
    said = declared.metadata
    if declared.type_name == "string":
        if "enum" in said:
            yield f"{value}x"
        if "pattern" in said:
            yield from [bad for bad in (f"{value}\n", f"{value}☃") if not pattern(said["pattern"]).fullmatch(bad)][:1]
        if "max" in said:
            yield (value or "a") * (said["max"] + 1)
    elif declared.type_name in ("integer", "long"):
        yield from ([said["min"] - 1] if "min" in said else [])
        yield from ([said["max"] + 1] if "max" in said else [])
    elif declared.type_name == "list" and value:
        yield from ([[]] if said.get("min") else [])
        yield from ([list(value[:1]) * (said["max"] + 1)] if "max" in said else [])


def _changed(what: str, request: Mapping[str, Any], path: Path, change: Any) -> Mutation:
    changed = copy.deepcopy(dict(request))
    change(_at(changed, path[:-1]), path[-1])
    return Mutation(what, path, changed)


def _at(value: Any, path: Path) -> Any:
    for key in path:
        value = value[key]
    return value

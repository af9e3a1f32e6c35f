"""problems(service, operation, request) → everything SageMaker's API model refuses in a request.

Stricter than botocore's own validator, which lets enums and patterns pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import botocore.session
from botocore.model import ListShape, MapShape, ServiceModel, Shape, StringShape, StructureShape

_KINDS: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "boolean": (bool,),
    "structure": (dict,),
    "map": (dict,),
    "list": (list,),
}


@cache
def model(service: str) -> ServiceModel:
    """A service's API model, from botocore's files."""
    return botocore.session.get_session().get_service_model(service)


def problems(service: str, operation: str, request: dict[str, Any]) -> list[str]:
    """Every problem of a request, each with its path."""
    shape = model(service).operation_model(operation).input_shape
    assert shape is not None
    return list(_problems(shape, request, operation))


def of_shape(service: str, shape: str, value: Any) -> list[str]:
    """Every problem of a part of a request, by the name of its shape."""
    return list(_problems(model(service).shape_for(shape), value, shape))


def python(pattern: str) -> str:
    """Classes of characters by Unicode's name, as Python writes them, nearly."""
    for theirs, ours in ((r"\p{L}", r"\w"), (r"\p{Z}", r"\s"), (r"\p{N}", r"\d")):
        pattern = pattern.replace(theirs, ours)
    return pattern


def _problems(shape: Shape, value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, _KINDS[shape.type_name]) or (isinstance(value, bool) and shape.type_name != "boolean"):
        yield f"{path}: {value!r} is no {shape.type_name}"
        return
    size = value if isinstance(value, int | float) else len(value)
    if "min" in shape.metadata and size < shape.metadata["min"]:
        yield f"{path}: {size} is less than {shape.metadata['min']}"
    if "max" in shape.metadata and size > shape.metadata["max"]:
        yield f"{path}: {size} is more than {shape.metadata['max']}"
    if isinstance(shape, StringShape):
        if shape.enum and value not in shape.enum:
            yield f"{path}: {value!r} is none of its {len(shape.enum)} values"
        if (pattern := shape.metadata.get("pattern")) and not re.fullmatch(python(pattern), value):
            yield f"{path}: {value!r} does not match {pattern}"
    elif isinstance(shape, StructureShape):
        yield from (f"{path}: {name} is missing" for name in shape.required_members if name not in value)
        for name, inner in value.items():
            if name not in shape.members:
                yield f"{path}.{name}: unknown"
            else:
                yield from _problems(shape.members[name], inner, f"{path}.{name}")
    elif isinstance(shape, ListShape):
        for index, inner in enumerate(value):
            yield from _problems(shape.member, inner, f"{path}.{index}")
    elif isinstance(shape, MapShape):
        for key, inner in value.items():
            yield from _problems(shape.key, key, f"{path} key")
            yield from _problems(shape.value, inner, f"{path}.{key}")

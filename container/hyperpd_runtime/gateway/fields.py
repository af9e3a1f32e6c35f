"""What the fields that the gateway itself reads must hold, as JSON Schema. All others are the engine's to refuse.

seed and temperature are not here: the engine has its own reading of them, and both are shown to it alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TEXT_OR_LIST = ["string", "array"]
_FLAG: dict[str, Any] = {"type": ["boolean", "null"]}
_WORD: dict[str, Any] = {"type": ["string", "null"]}
_COUNT: dict[str, Any] = {"type": ["integer", "null"]}
_LIST: dict[str, Any] = {"type": ["array", "null"]}
_OBJECT: dict[str, Any] = {"type": ["object", "null"]}

# null is as if the field were not there; where it must be, `guard` says so.
FIELDS: Mapping[str, Mapping[str, Any]] = {
    "model": {"type": "string"},
    "stream": _FLAG,
    "stream_options": _OBJECT,
    "prompt": {"type": _TEXT_OR_LIST},
    "messages": {"type": "array"},
    "input": {"type": _TEXT_OR_LIST},
    "tools": _LIST,
    "n": {"type": ["integer", "null"], "minimum": 1},
    "max_tokens": _COUNT,
    "max_completion_tokens": _COUNT,
    "max_output_tokens": _COUNT,
    "use_beam_search": _FLAG,
    "echo": _FLAG,
    "prompt_logprobs": _COUNT,
    "truncate_prompt_tokens": _COUNT,
    "truncation": _WORD,
    "store": _FLAG,
    "background": _FLAG,
    "previous_response_id": _WORD,
}
_EXACT = 1 << 53  # beyond it, a double stands for several integers
_CLASSES: Mapping[str, type] = {
    "string": str,
    "boolean": bool,
    "integer": int,
    "array": list,
    "object": dict,
    "null": type(None),
}


def json_type(value: Any) -> str:
    """What JSON calls a value; never the value itself, which may be part of a prompt."""
    if isinstance(value, float):
        return "number"
    return next(name for name, of in _CLASSES.items() if isinstance(value, of) and not _is_flag(value, name))


def _is_flag(value: Any, name: str) -> bool:
    return name == "integer" and isinstance(value, bool)


def whole_numbers(body: dict[str, Any]) -> None:
    """Write 100.0 as 100 where an integer belongs: JSON knows one kind of number, and some writers no other form."""
    for key, value in body.items():
        schema = FIELDS.get(key)
        if schema and isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
            types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
            if "integer" in types:
                body[key] = int(value)


def wrong_value(key: str, value: Any) -> str:
    """What is wrong with what the field `key` holds; empty where nothing is."""
    schema = FIELDS.get(key)
    if schema is None or value is None:
        return ""
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if (found := json_type(value)) not in types:
        wanted = " or ".join("true or false" if name == "boolean" else _a(name) for name in types if name != "null")
        return f"must be {wanted} (found {_a(found)})"
    if "minimum" in schema and value < schema["minimum"]:
        return f"must be at least {schema['minimum']}"
    return ""


def _a(name: str) -> str:
    return f"{'an' if name[0] in 'aio' else 'a'} {name}"

"""JSON as RFC 8259 has it: what two readers could take for different things is refused.

A proxy in front may read the first of two `model` fields, and the engine the last. Nor are NaN, Infinity, half a
surrogate pair or another encoding than UTF-8 let through.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

_SURROGATE = re.compile(r"\\u[dD][89abAB-F]")  # maybe half a pair: looked at again
_NESTED = {dict, list}  # exactly these are made of JSON; to ask for the type takes a quarter of isinstance


class NotJson(ValueError):
    """What is wrong, and where; never what was read. `code` is a word for programs."""

    def __init__(self, message: str, code: str = "invalid_json") -> None:
        super().__init__(message)
        self.code = code


def loads(raw: bytes, depth: int) -> Any:
    """The document that `raw` holds; at most `depth` arrays and objects within one another. Raises NotJson.

    The depth is seen in the parsed document, where there are that many brackets at all: counting them takes 0.7 ms per
    MiB, a scan of the text for strings and brackets 12 to 90. The parser's own stack is bounded by Python.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotJson(f"byte {error.start} is not UTF-8; send UTF-8", "invalid_encoding") from None
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_number)
    except json.JSONDecodeError as error:
        raise NotJson(f"{error}; send one JSON object") from None
    except NotJson:
        raise
    except RecursionError:
        raise _too_deep(depth) from None
    except ValueError:  # of int: it takes 4300 digits
        raise NotJson("a number has more than 4300 digits; send a smaller one") from None
    if text.count("[") + text.count("{") > depth and _deeper(value, depth):
        raise _too_deep(depth)
    if _SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise NotJson(
                "half a surrogate pair (\\ud800 to \\udfff) is no character; send both", "invalid_encoding"
            ) from None
    return value


def _too_deep(depth: int) -> NotJson:
    return NotJson(f"nested deeper than {depth} (gateway.limits.json_depth); send it flatter", "nested_too_deep")


def _deeper(value: Any, depth: int) -> bool:
    """Whether `value` has more than `depth` levels; level by level, so that no stack grows."""
    level = [value] if type(value) in _NESTED else []
    for _ in range(depth):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) in _NESTED
        ]
        if not level:
            return False
    return True


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise NotJson("an object has the same key twice; say it once", "duplicate_key")
    return made


def _constant(name: str) -> Any:
    raise NotJson(f"{name} is no JSON number; send null, or nothing")


def _number(text: str) -> float:
    if math.isinf(value := float(text)):
        raise NotJson("a number is too large for a double; send a smaller one")
    return value

"""JSON as RFC 8259 has it: what two readers could take for different things is refused.

A proxy in front may read the first of two `model` fields, and the engine the last. Nor are NaN, Infinity, half a
surrogate pair or another encoding than UTF-8 let through.
"""

from __future__ import annotations

import json
import math
from typing import Any

_NESTED = {dict, list}  # exactly these are made of JSON; to ask for the type takes a quarter of isinstance
_LOOKED_AT = {*_NESTED, str}


class NotJson(ValueError):
    """What is wrong, and where; never what was read. `code` is a word for programs."""

    def __init__(self, message: str, code: str = "invalid_json") -> None:
        super().__init__(message)
        self.code = code


def loads(raw: bytes, depth: int) -> Any:
    """The document that `raw` holds; at most `depth` arrays and objects within one another. Raises NotJson.

    The depth is seen in the parsed document: that takes 4 ms per MiB of token ids, and next to nothing for texts; to
    look for strings and brackets before parsing takes 12 to 90. The parser's own stack is bounded by Python.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotJson(f"byte {error.start} is not UTF-8; send UTF-8", "invalid_encoding") from None
    try:
        value = _decoder.decode(text)
    except json.JSONDecodeError as error:
        raise NotJson(f"{error}; send one JSON object") from None
    except NotJson:
        raise
    except RecursionError:
        raise _too_deep(depth) from None
    except ValueError:  # of int: it takes 4300 digits
        raise NotJson("a number has more than 4300 digits; send a smaller one") from None
    _look_through(value, depth)
    return value


def _too_deep(depth: int) -> NotJson:
    return NotJson(f"nested deeper than {depth} (gateway.limits.json_depth); send it flatter", "nested_too_deep")


def _look_through(value: Any, depth: int) -> None:
    """Level by level, so that no stack grows. Raises NotJson where there are more than `depth`, or a text is none."""
    level = [value] if type(value) in _NESTED else []
    for _ in range(depth):
        within = [
            inner
            for outer in level
            for inner in (outer if type(outer) is list else (*outer, *outer.values()))
            if type(inner) in _LOOKED_AT
        ]
        try:
            for text in within:
                if type(text) is str and not text.isascii():
                    text.encode()
        except UnicodeEncodeError:
            what = "half a surrogate pair (\\ud800 to \\udfff) is no character; send both"
            raise NotJson(what, "invalid_encoding") from None
        level = [inner for inner in within if type(inner) is not str]
        if not level:
            return
    raise _too_deep(depth)


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


_decoder = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_number)

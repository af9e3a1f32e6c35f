"""An API key as a client holds it: the file it comes from, and what can be sent as one. No message ever shows it."""

from __future__ import annotations

import re
from pathlib import Path

from hyperpd.errors import RecipeError

_SENDABLE = re.compile(r"[!-~]+")  # printable ASCII without spaces: a header carries it as it is
_NOT_ONE = (
    "not one API key: give the key alone, on one line of printable ASCII without spaces"
    " (the gateway's own key file, a JSON list of hashes, is another)"
)


def read(path: Path) -> str:
    """The key that a file holds, without the spaces and line ends around it. Raises RecipeError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RecipeError(str(path), [f"cannot be read: {error.strerror}"]) from None
    key = content.strip().decode("latin-1")
    check(key, str(path))
    return key


def check(key: str, where: str) -> None:
    """Raises RecipeError for what cannot be sent as a key."""
    if not _SENDABLE.fullmatch(key):
        raise RecipeError(where, [_NOT_ONE])

"""A client's key and its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyperpd import api_key
from hyperpd.errors import RecipeError


@pytest.mark.parametrize("content", [b"sk-a", b"sk-a\n", b"\r\n sk-a \r\n"])
def test_the_key_of_a_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    assert api_key.read(path) == "sk-a"


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"sk-a\nsk-b", b"sk-a sk-b", b"sk-\xff", b"\xef\xbb\xbfsk-a", b"sk\0a"]
)
def test_what_is_not_one_key_is_refused_and_not_shown(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match="not one API key: give the key alone") as why:
        api_key.read(path)
    assert str(path) in str(why.value)
    assert "sk" not in str(why.value).replace(str(path), "")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="none: 1 problem\n  - cannot be read: No such file"):
        api_key.read(tmp_path / "none")

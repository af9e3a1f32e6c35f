"""Whole renderings, kept in tests/deploy/snapshots: a change of what is written is seen in a review."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from hyperpd import __version__
from hyperpd.deploy.target import Document

FOLDER = Path(__file__).parent / "snapshots"


def joined(texts: Mapping[str, str]) -> str:
    """All files of a rendering as one text, the version left out."""
    said = "".join(f"##### {called}\n{content}" for called, content in texts.items())
    return said.replace(f"hyperpd {__version__}", "hyperpd VERSION")


def hold(name: str, said: str) -> None:
    """Hold a text to the one that is kept; one that is missing is written, and its test fails once."""
    path = FOLDER / name
    if not path.exists():
        path.write_text(said)
        pytest.fail(f"{path} is written: look at it, then commit it")
    assert said == path.read_text(), f"delete {path} to have it written anew"


def notes_meet_keys(document: Document) -> None:
    """Every note of an object stands above a key that is there."""
    for note in document.notes or {}:
        below = document.body
        for key in note.split("."):
            below = below[int(key)] if isinstance(below, list) else below[key]  # type: ignore[index]

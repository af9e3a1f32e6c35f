"""Lifecycle files: which, their digest, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyperpd.cluster.lifecycle import scripts
from hyperpd.deploy.console import uploads
from hyperpd.errors import RecipeError


def test_the_shipped_ones_are_those_of_the_console():
    assert {name: content.decode() for name, content in scripts("hyperpd").files.items()} == uploads.scripts()


def test_a_digest_of_names_and_contents(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "on_create.sh").write_text("true\n")
    (tmp_path / "sub" / "data.json").write_text("{}")
    first = scripts(str(tmp_path))
    (tmp_path / ".hidden").write_text("x")
    assert scripts(str(tmp_path)) == first
    assert sorted(first.files) == ["on_create.sh", "sub/data.json"]
    (tmp_path / "sub" / "data.json").rename(tmp_path / "sub" / "data2.json")
    renamed = scripts(str(tmp_path))
    (tmp_path / "on_create.sh").write_text("false\n")
    assert len({first.digest, renamed.digest, scripts(str(tmp_path)).digest}) == 3


def refused(folder: Path) -> str:
    with pytest.raises(RecipeError) as error:
        scripts(str(folder))
    return str(error.value)


def test_what_nodes_could_not_take(tmp_path):
    assert "is empty or no folder" in refused(tmp_path)
    (tmp_path / "on_create.sh").write_bytes(b"#!/bin/bash\r\ntrue\r\n")
    assert "on_create.sh: lines end with a carriage return" in refused(tmp_path)
    (tmp_path / "on_create.sh").write_bytes(b"#!/bin/bash\ntrue\n")
    (tmp_path / ("a" * 129)).write_text("")
    assert "more than 128 characters" in refused(tmp_path)
    (tmp_path / ("a" * 129)).unlink()
    with (tmp_path / "model.bin").open("wb") as big:
        big.truncate(60 * 2**20)
    assert "nodes download all of them" in refused(tmp_path)

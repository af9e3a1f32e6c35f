"""The doctor reads what the lifecycle scripts left on a node."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hyperpd_runtime.doctor import lifecycle


def test_where_they_never_ran(tmp_path: Path) -> None:
    assert lifecycle(tmp_path / "node.json") == []


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ({"status": "ok", "warnings": []}, [("ok", "ran without a warning")]),
        (
            {"status": "warnings", "warnings": ["10-storage: a", "30-efa: b"]},
            [("warning", "10-storage: a"), ("warning", "30-efa: b")],
        ),
        ({"status": "failed", "step": "30-efa", "reason": "4 of 32 devices"}, [("failed", "30-efa: 4 of 32 devices")]),
    ],
)
def test_what_they_said(tmp_path: Path, told: dict[str, object], found: list[tuple[str, str]]) -> None:
    (tmp_path / "node.json").write_text(json.dumps(told))
    assert [(check.state, check.seen) for check in lifecycle(tmp_path / "node.json")] == found


def test_a_summary_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "node.json").write_text("{")
    assert [check.state for check in lifecycle(tmp_path / "node.json")] == ["warning"]

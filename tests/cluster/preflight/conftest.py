"""The account's environment and an empty price cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.preflight.account import Account


@pytest.fixture
def enter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Account], None]:
    """Makes an account that of this process."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def enter(aws: Account) -> None:
        for name, value in aws.environment.items():
            monkeypatch.setenv(name, value)

    return enter

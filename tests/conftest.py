"""A command within the test's process; what holds in every test: a document that one prints there is of its type."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from hyperpd.cli import output
from hyperpd.cli.main import main

settings.register_profile("hyperpd", deadline=None)  # how long an example takes says how busy the machine is
settings.load_profile("hyperpd")


@pytest.fixture(autouse=True, scope="session")
def documents_are_held() -> Iterator[None]:
    def document(value: object, **how: bool) -> None:
        from tests.documents import holding  # needs packages that not every test has

        holding(printed)(value, **how)

    printed = output.document
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output, "document", document)
        yield


@pytest.fixture
def hyperpd(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Runs a command of hyperpd within this process; exit status, standard output, standard error."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def run(*argv: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hyperpd", *map(str, argv)])
        code = 0
        try:
            main()
        except SystemExit as done:
            code = int(done.code or 0)
        return code, *capsys.readouterr()

    return run

from __future__ import annotations

import pytest

from hyperpd.errors import RecipeError
from hyperpd_runtime import settings


def test_argv_wins_over_environment() -> None:
    environ = {"HYPERPD_ROLE": "prefill", "HYPERPD_RECIPE": "r", "HYPERPD_ORDINAL": "2", "PATH": "/bin"}
    found = settings.read(["--role", "decode", "--port-offset=5"], environ)
    assert (found.role, found.recipe, found.ordinal, found.port_offset) == ("decode", "r", 2, 5)


def test_every_problem_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        settings.read(["--rolle", "x", "loose", "--ordinal", "-1"], {"HYPERPD_RECIPY": "r"})
    text = "\n".join(caught.value.problems)
    assert "HYPERPD_RECIPY: unknown; did you mean recipe?" in text
    assert "--rolle: unknown; did you mean role?" in text
    assert "loose: settings are --name value" in text
    assert "ordinal:" in text
    assert "role: missing" in text

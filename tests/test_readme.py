"""The README's tables are the code's."""

from __future__ import annotations

from pathlib import Path

from hyperpd.environment import table
from hyperpd.recipe import parse, shipped

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()


def test_settings_table() -> None:
    for row in table():
        assert f"| {' | '.join(row)} |".replace("|  |", "| |") in README


def test_shipped_recipes_are_named() -> None:
    assert [name for name in shipped() if f"`{name}`" not in README] == []


def test_the_recipe_shown_is_valid() -> None:
    import yaml

    parse(yaml.safe_load(README.split("```yaml")[1].split("```")[0]), "README.md")

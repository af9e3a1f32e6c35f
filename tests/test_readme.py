"""The README's tables are the code's."""

from __future__ import annotations

from pathlib import Path

from hyperpd import capacity
from hyperpd.cluster import file as cluster
from hyperpd.environment import table
from hyperpd.prices import reference
from hyperpd.recipe import load, parse, shipped

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
RECIPES = (ROOT / "recipes" / "README.md").read_text()


def test_settings_table() -> None:
    for row in table():
        assert f"| {' | '.join(row)} |".replace("|  |", "| |") in README


def test_shipped_recipes_are_named() -> None:
    assert [name for name in shipped() if f"`{name}`" not in RECIPES] == []


def test_the_catalogue_says_what_is_computed() -> None:
    for name in shipped():
        recipe = load(name).recipe
        if recipe.accelerator == "cpu" or recipe.model.generated:
            continue
        taken = capacity.check(recipe)
        nodes = capacity.instances(taken)
        prices_usd = [reference(kind) for kind in nodes]
        usd = sum(price.usd_per_hour * nodes[kind] for kind, price in zip(nodes, prices_usd, strict=True) if price)
        moved = f"{taken.s_per_1000_tokens * 1000:.2f}" if taken.s_per_1000_tokens else "-"
        (row,) = [line.split(" | ") for line in RECIPES.splitlines() if line.startswith(f"| `{name}` |")]
        where = " + ".join(f"{count} × {kind.removeprefix('ml.')}" for kind, count in nodes.items())
        kv = f"{taken.kv_bytes_per_token:,}"
        assert row[1].startswith(f"{recipe.layout} ("), name
        assert row[2:] == [str(taken.gpus), where, kv, moved, f"{usd:,.2f} |"], name
        assert all(price and price.date.isoformat() in RECIPES for price in prices_usd)


def test_the_recipe_shown_is_valid() -> None:
    import yaml

    parse(yaml.safe_load(_example("A recipe")), "README.md")


def test_the_cluster_file_shown_is_valid() -> None:
    import yaml

    document = yaml.safe_load(_example("The cluster").replace("…", "0123456789abcdef0"))
    assert list(cluster.check(cluster.parse(document, "README.md"))) == ["prefill", "decode", "gateway"]


def _example(section: str) -> str:
    return README.split(f"\n## {section}\n")[1].split("```yaml")[1].split("```")[0]

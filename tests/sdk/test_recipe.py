"""Recipes: every problem at once, the nearest key, owned flags, the shipped files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from hyperpd.errors import RecipeError
from hyperpd.recipe import load, parse, shipped


def minimal(**blocks: Any) -> dict[str, Any]:
    return {"version": 1, "name": "pair", "model": {"generated": "tiny-llama"}, "prefill": {}, "decode": {}, **blocks}


def problems(document: Any) -> tuple[str, ...]:
    with pytest.raises(RecipeError) as caught:
        parse(document, "pair.yaml")
    return caught.value.problems


def test_five_mistakes_are_five_problems() -> None:
    document = minimal(
        name="Pair!",
        accelerator="tpu",
        model={"generated": "tiny-llama", "max_len_token": 2048},
        prefill={"replicas": 0},
        kv_transfer={"lease_s": 5},
    )
    found = problems(document)
    assert len(found) == 5
    paths = {problem.split(":")[0] for problem in found}
    assert paths == {"name", "accelerator", "model.max_len_token", "prefill.replicas", "kv_transfer.lease_s"}
    assert "model.max_len_token: unknown key; did you mean max_len_tokens?" in found


def test_the_message_names_the_file_and_every_problem() -> None:
    with pytest.raises(RecipeError, match=r"^pair\.yaml: 2 problems\n  - .*\n  - ") as caught:
        parse(minimal(prefil={}, drain_s=-1), "pair.yaml")
    assert caught.value.exit_code == 2
    assert "did you mean prefill?" in str(caught.value)


@pytest.mark.parametrize(
    "key", ["block-size", "block_size", "--block-size", "block-siz", "no-block-size", "block-size.x"]
)
def test_an_owned_flag_is_refused_by_name_however_it_is_spelled(key: str) -> None:
    (problem,) = problems(minimal(prefill={"engine": {key: 16}}))
    assert problem.startswith("prefill.engine:")
    assert f"engine.{key} is set by hyperpd from kv_transfer.block_size_tokens" in problem


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"decode": None}, "no decode block"),
        ({"aggregated": {}}, "not both"),
        ({"model": {"generated": "tiny-llama", "path": "/m"}}, "exactly one of"),
        ({"model": {}}, "found: none"),
        ({"model": {"path": "/m", "revision": "main"}}, "revision goes with huggingface"),
    ],
)
def test_blocks_that_contradict_each_other(change: dict[str, Any], says: str) -> None:
    assert says in " ".join(problems(minimal(**change)))


@pytest.mark.parametrize("document", [None, [], "text"])
def test_what_is_no_mapping_is_refused(document: Any) -> None:
    assert "mapping" in problems(document)[0]


@pytest.mark.parametrize("name", ["tiny-cpu-1p1d", "tiny-gpu-1p1d", "tiny-cpu-aggregated"])
def test_shipped_recipes_load(name: str) -> None:
    file = load(name)
    assert name in shipped()
    assert file.recipe.name == name
    assert file.recipe.model.name == "tiny-llama"
    assert file.digest == hashlib.sha256(file.path.read_bytes()).hexdigest()


def test_every_shipped_recipe_is_called_as_its_file() -> None:
    assert [load(name).recipe.name for name in shipped()] == shipped()


def test_a_wrong_name_gets_the_nearest_one() -> None:
    with pytest.raises(RecipeError, match="did you mean tiny-cpu-1p1d"):
        load("tiny-cpu-1p1")


def test_what_is_not_yaml_is_said_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("version: [1")
    with pytest.raises(RecipeError, match=r"broken\.yaml: 1 problem\n  - not YAML"):
        load(path)

"""The recipes for GPUs that come with hyperpd: each loads, fits, and takes what this table says."""

from __future__ import annotations

import re
from itertools import chain

import pytest

from hyperpd import capacity, prices
from hyperpd.errors import CapacityError
from hyperpd.placement import Machine, place
from hyperpd.recipe import Recipe, load, shipped

SCHEMA = "# yaml-language-server: $schema=recipe.schema.json"
# recipe: GPUs, nodes, layout, KV bytes per token, milliseconds for a handoff of 1,000 tokens at line rate
# (None: no network between the roles), EC2's reference price of the nodes in dollars per hour.
TABLE = {
    "deepseek-r1-p5en-1p1d": (32, 4, "1P+1D", 70_272, 1.44, 253.18),
    "deepseek-r1-p5en-2xdp16": (32, 4, "2x", 70_272, None, 253.18),
    "deepseek-v3-p6-b200-2p1d": (32, 4, "2P+1D", 70_272, 1.44, 455.73),
    "deepseek-v3-p6-b200-4xdp8": (32, 4, "4x", 70_272, None, 455.73),
    "gpt-oss-120b-p5en-4xtp4": (16, 2, "4x", 73_728, None, 126.59),
    "gpt-oss-120b-p5en-8p2d": (16, 2, "8P+2D", 73_728, 0.94, 126.59),
    "gpt-oss-120b-p6-b200-2xtp4": (8, 1, "2x", 73_728, None, 113.93),
    "gpt-oss-120b-p6-b200-4p1d": (8, 1, "4P+1D", 73_728, None, 113.93),
    "gpt-oss-120b-p6-b200-8xtp1": (8, 1, "8x", 73_728, None, 113.93),
    "gpt-oss-20b-g6e-1p1d": (2, 2, "1P+1D", 49_152, 10.07, 9.06),
    "gpt-oss-20b-g6e-2xtp1": (2, 2, "2x", 49_152, None, 9.06),
    "llama-3.3-70b-p5en-4p2d": (16, 2, "4P+2D", 327_680, 3.36, 126.59),
    "llama-3.3-70b-p5en-8xtp2": (16, 2, "8x", 327_680, None, 126.59),
    "qwen3-235b-p5en-4p2d": (16, 2, "4P+2D", 192_512, 1.97, 126.59),
    "qwen3-235b-p5en-4xtp4": (16, 2, "4x", 192_512, None, 126.59),
    "qwen3-32b-fp8-g7e-4p4d": (16, 2, "4P+4D", 262_144, 5.37, 66.29),
    "qwen3-32b-fp8-g7e-8xtp2": (16, 2, "8x", 262_144, None, 66.29),
    "qwen3-32b-p5-4p2d": (16, 2, "4P+2D", 262_144, 2.68, 110.08),
    "qwen3-32b-p5-8xtp2": (16, 2, "8x", 262_144, None, 110.08),
}
# A split, and the aggregated recipes with as many GPUs to compare it with.
BASELINES = {
    "deepseek-r1-p5en-1p1d": ["deepseek-r1-p5en-2xdp16"],
    "deepseek-v3-p6-b200-2p1d": ["deepseek-v3-p6-b200-4xdp8"],
    "gpt-oss-120b-p5en-8p2d": ["gpt-oss-120b-p5en-4xtp4"],
    "gpt-oss-120b-p6-b200-4p1d": ["gpt-oss-120b-p6-b200-2xtp4", "gpt-oss-120b-p6-b200-8xtp1"],
    "gpt-oss-20b-g6e-1p1d": ["gpt-oss-20b-g6e-2xtp1"],
    "llama-3.3-70b-p5en-4p2d": ["llama-3.3-70b-p5en-8xtp2"],
    "qwen3-235b-p5en-4p2d": ["qwen3-235b-p5en-4xtp4"],
    "qwen3-32b-fp8-g7e-4p4d": ["qwen3-32b-fp8-g7e-8xtp2"],
    "qwen3-32b-p5-4p2d": ["qwen3-32b-p5-8xtp2"],
}
EACH = pytest.mark.parametrize("name", TABLE)


def recipe(name: str) -> Recipe:
    return load(name).recipe


def usd_per_hour(found: capacity.Capacity) -> float:
    (instance,) = {part.instance.name for part in found.roles}
    price = prices.reference(instance)
    assert price
    return price.usd_per_hour * found.nodes


def test_the_table_is_the_catalogue() -> None:
    assert [name for name in shipped() if not name.startswith("tiny-")] == sorted(TABLE)
    assert sorted([*BASELINES, *chain(*BASELINES.values())]) == sorted(TABLE)


@EACH
def test_it_fits_and_takes_what_the_table_says(name: str) -> None:
    found = capacity.check(recipe(name))
    assert found.unchecked == ()
    assert all(note.endswith(("goes to 4", "goes to 8", "goes to 16")) for note in found.notes)
    gpus, nodes, layout, kv_bytes, transfer_ms, usd = TABLE[name]
    assert (found.gpus, found.nodes, recipe(name).layout, found.kv_bytes_per_token) == (gpus, nodes, layout, kv_bytes)
    assert found.s_per_1000_tokens == (None if transfer_ms is None else pytest.approx(transfer_ms / 1e3, rel=0.01))
    assert usd_per_hour(found) == pytest.approx(usd, abs=0.01)
    for part in found.roles:  # whole EFA devices for each worker, and room for several long prompts
        assert part.efa_per_node >= 1
        assert part.memory
        assert part.memory.sequences >= 4


@EACH
def test_it_is_placed_on_as_many_machines_and_no_fewer(name: str) -> None:
    found = capacity.check(recipe(name))
    machines = [Machine(f"10.0.0.{node}", gpus=found.roles[0].instance.gpus) for node in range(found.nodes)]
    assert {worker.node for worker in place(recipe(name), machines).workers} == set(range(found.nodes))
    with pytest.raises(CapacityError):
        place(recipe(name), [*machines[1:], Machine("10.0.1.0", gpus=0)])


@EACH
def test_it_is_written_as_the_catalogue_is(name: str) -> None:
    file = load(name)
    text = file.path.read_text()
    assert text.startswith(SCHEMA + "\n#")
    assert "Unverified" in text
    assert file.recipe.description.endswith("(unverified)")
    assert not re.search(r"\b(fast|faster|speed|throughput|best)\b", file.recipe.description)
    assert file.recipe.model.revision is None  # no commit has been seen to be right
    assert file.recipe.start_timeout_s >= 1200


@pytest.mark.parametrize(("split", "baseline"), [(split, one) for split, ones in BASELINES.items() for one in ones])
def test_a_baseline_has_the_same_model_and_machines(split: str, baseline: str) -> None:
    left, right = recipe(split), recipe(baseline)
    assert left.model == right.model
    assert left.slo == right.slo
    assert right.aggregated
    assert TABLE[split][:2] == TABLE[baseline][:2]
    assert {spec.instance_type for spec in left.roles().values()} == {right.aggregated.instance_type}


def test_the_headline_is_the_published_layout() -> None:
    headline = recipe("gpt-oss-120b-p6-b200-4p1d")
    assert headline.fabric == "local"
    assert headline.prefill
    assert headline.decode
    assert (headline.prefill.replicas, headline.prefill.parallel.size) == (4, 1)
    assert (headline.decode.replicas, headline.decode.parallel.tensor) == (1, 4)
    assert headline.gateway.threshold_tokens == 0

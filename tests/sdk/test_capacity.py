"""Capacity: what a recipe takes, counted by hand here; every problem at once, and the nearest that fits."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from hyperpd import capacity, prices
from hyperpd.capacity import GIB, Capacity
from hyperpd.errors import CapacityError
from hyperpd.instances import INSTANCES
from hyperpd.models import find
from hyperpd.recipe import Recipe, parse

LLAMA = "meta-llama/Llama-3.3-70B-Instruct"
R1 = "deepseek-ai/DeepSeek-R1"
P5EN = "ml.p5en.48xlarge"


def recipe(model: str = LLAMA, max_len_tokens: int = 8192, **blocks: Any) -> Recipe:
    named = {"huggingface": model, "max_len_tokens": max_len_tokens}
    return parse({"version": 1, "name": "x", "model": named, **blocks}, "x.yaml")


def role(instance: str = P5EN, replicas: int = 1, engine: dict[str, Any] | None = None, **parallel: Any) -> Any:
    return {"instance_type": instance, "replicas": replicas, "parallel": parallel, "engine": engine or {}}


def refused(written: Recipe) -> list[str]:
    with pytest.raises(CapacityError) as caught:
        capacity.check(written)
    first, *lines = str(caught.value).split("\n  - ")
    assert first == "x does not fit:"
    assert caught.value.exit_code == 3
    return lines


def one(**parallel: Any) -> capacity.Memory:
    memory = capacity.check(recipe(aggregated=role(**parallel))).role("aggregated").memory
    assert memory
    return memory


def test_the_sum_of_one_gpu() -> None:
    memory = one(tensor=2)
    assert memory.budget_gib == pytest.approx(141 * 0.99 * 0.92)
    assert memory.weights_gib == pytest.approx(141_107_412_992 / 2 / GIB)
    # 4 GiB of libraries, 1 of CUDA graphs, and 40 bytes x 8,192 units x 8,192 tokens.
    assert memory.reserve_gib == pytest.approx(4 + 1 + 40 * 8192 * 8192 / GIB)
    assert memory.kv_gib == pytest.approx(memory.budget_gib - memory.weights_gib - memory.reserve_gib)
    assert memory.kv_bytes_per_token == 160 * 1024  # half of 320 KiB
    assert memory.rank_tokens == int(memory.kv_gib * GIB / (160 * 1024))
    assert memory.sequences == memory.rank_tokens // 8192


def test_engine_options_that_change_the_sum() -> None:
    plain = one(tensor=2)
    assert one(tensor=2, engine={"gpu-memory-utilization": 0.8}).budget_gib == pytest.approx(141 * 0.99 * 0.8)
    assert one(tensor=2, engine={"enforce-eager": True}).reserve_gib == pytest.approx(plain.reserve_gib - 1)
    assert one(tensor=2, engine={"max-num-batched-tokens": "4K"}).reserve_gib == pytest.approx(6.25)
    assert one(tensor=2, engine={"max-num-batched-tokens": "4k"}).reserve_gib < 6.25
    assert one(tensor=2, engine={"kv-cache-memory-bytes": 10 * GIB}).kv_gib == 10
    halved = one(tensor=2, engine={"kv-cache-dtype": "fp8"})
    assert halved.kv_bytes_per_token == plain.kv_bytes_per_token // 2
    assert halved.rank_tokens == pytest.approx(2 * plain.rank_tokens, abs=1)


def test_vllm_steps_in_larger_pieces_on_larger_gpus() -> None:
    assert one(instance="ml.p6-b200.48xlarge", tensor=2).reserve_gib == pytest.approx(10)
    assert one(instance="ml.p4de.24xlarge", tensor=4).reserve_gib == pytest.approx(5 + 40 * 8192 * 2048 / GIB)


def test_kv_heads_are_split_until_each_rank_has_one() -> None:
    taken = [one(tensor=tensor).kv_bytes_per_token for tensor in (2, 4, 8)]
    assert taken == [163_840, 81_920, 40_960]
    wide = capacity.check(recipe("Qwen/Qwen3-235B-A22B", aggregated=role(tensor=8))).role("aggregated").memory
    assert wide
    assert wide.kv_bytes_per_token == 192_512 // 4  # 4 KV heads on 8 ranks: each is there twice


def test_a_latent_is_whole_on_every_rank() -> None:
    for tensor in (8, 16):
        part = capacity.check(recipe(R1, aggregated=role(tensor=tensor, nodes=tensor // 8))).role("aggregated")
        assert part.memory
        assert part.memory.kv_bytes_per_token == 70_272


def test_experts_are_split_over_all_ranks_and_the_rest_copied() -> None:
    found = capacity.check(recipe(R1, aggregated=role(data=16, expert=True, nodes=2)))
    part = found.role("aggregated")
    assert (part.gpus_per_worker, part.gpus_per_node, part.nodes, part.ranks) == (16, 8, 2, 16)
    assert part.memory
    dense, experts = 688_574_839_360 - 665_345_458_176, 665_345_458_176
    assert part.memory.weights_gib == pytest.approx((dense + experts / 16) / GIB)
    assert part.worker_tokens == part.memory.rank_tokens * 16


def test_a_sliding_layer_keeps_its_window_only() -> None:
    model = "openai/gpt-oss-120b"
    plain = capacity.check(recipe(model, aggregated=role())).role("aggregated").memory
    option = {"disable-hybrid-kv-cache-manager": True}
    full = capacity.check(recipe(model, aggregated=role(engine=option))).role("aggregated").memory
    assert plain
    assert full
    assert 1.9 < plain.rank_tokens / full.rank_tokens < 2  # half of the layers


def test_stages_have_a_share_of_layers_and_weights() -> None:
    memory = one(tensor=1, pipeline=2)
    assert memory.kv_bytes_per_token == 160 * 1024
    assert memory.weights_gib == pytest.approx(141_107_412_992 / 2 / GIB)


def pair(prefill: Any, decode: Any, model: str = LLAMA, **blocks: Any) -> Capacity:
    return capacity.check(recipe(model, prefill=prefill, decode=decode, **blocks))


def test_efa_puts_the_roles_on_nodes_of_their_own() -> None:
    found = pair(role(tensor=2), role(tensor=4))
    assert (found.gpus, found.nodes) == (6, 2)
    assert [part.efa_per_node for part in found.roles] == [4, 8]
    assert pair(role(tensor=2, replicas=5), role(tensor=4, replicas=2)).nodes == 3


def test_local_is_one_node() -> None:
    local: dict[str, Any] = {"kv_transfer": {"fabric": "local"}}
    found = pair(role(tensor=2), role(tensor=4), **local)
    assert (found.gpus, found.nodes, found.s_per_1000_tokens) == (6, 1, None)
    lines = refused(recipe(prefill=role(tensor=2, replicas=3), decode=role(tensor=4), **local))
    assert lines[0] == "kv_transfer.fabric local is one machine: needs 10 GPUs, 8 available"
    lines = refused(recipe(prefill=role(tensor=2), decode=role("ml.p5e.48xlarge", tensor=4), **local))
    assert "ml.p5en.48xlarge and ml.p5e.48xlarge" in lines[0]


def test_a_handoff_goes_at_the_rate_of_the_gpus_that_hold_it() -> None:
    """8k tokens of Llama-70B are 2.7 GB: 52 ms at 50 GB/s, as the facts have it; two GPUs halve that."""
    moved = 1024 * 327_680
    assert pair(role(tensor=2), role(tensor=2)).s_per_1000_tokens == pytest.approx(moved / 100e9)
    assert pair(role(tensor=2), role(tensor=8)).s_per_1000_tokens == pytest.approx(moved / 100e9)
    slow = role("ml.g6e.48xlarge", tensor=8)
    assert pair(role(tensor=4), slow).s_per_1000_tokens == pytest.approx(moved / 50e9)
    assert pair(role(tensor=2, data=4), role(tensor=4)).s_per_1000_tokens == pytest.approx(moved / 100e9)
    copied = pair(role(tensor=4), role(tensor=8), "Qwen/Qwen3-235B-A22B")  # 4 KV heads, read by 8 ranks
    assert copied.s_per_1000_tokens == pytest.approx(2 * 1024 * 192_512 / 200e9)
    wide = role(data=16, expert=True, nodes=2)  # a prompt is on one rank
    assert pair(wide, wide, R1).s_per_1000_tokens == pytest.approx(1024 * 70_272 / 50e9)
    both = role(tensor=8, nodes=1)  # every rank reads the whole latent, over a link of its own
    assert pair(both, both, R1).s_per_1000_tokens == pytest.approx(1024 * 70_272 / 50e9)


def test_every_problem_at_once_with_needed_and_available() -> None:
    lines = refused(recipe(max_len_tokens=200_000, prefill=role(), decode=role("ml.g6e.xlarge", tensor=4)))
    assert lines == [
        "prefill: needs 136.9 GiB of each GPU (131.4 weights, 5.5 reserve (an estimate)), 128.4 available on"
        " ml.p5en.48xlarge",
        "decode: needs 4 GPUs of one node, 1 available on ml.g6e.xlarge",
        "decode: kv_transfer.fabric efa needs an EFA device, 0 available on ml.g6e.xlarge",
        "decode: needs KV cache for one sequence of 200000 tokens, 20913 tokens available; lower"
        " model.max_len_tokens or raise TP",
        f"model.max_len_tokens: needs a context of 200000 tokens, 131072 available in {LLAMA}",
        "no single change of TP or instance type fits",
    ]


@pytest.mark.parametrize(
    ("written", "problem", "near"),
    [
        (recipe(prefill=role(), decode=role(tensor=4)), "needs 136.9 GiB", "prefill.parallel.tensor: 2 on ml.p5en"),
        (
            recipe(max_len_tokens=131_073, aggregated=role(tensor=4)),
            "needs a context of 131073",
            "model.max_len_tokens: 131072",
        ),
        (
            recipe(max_len_tokens=131_073, aggregated=role()),
            "needs 136.9 GiB",
            "model.max_len_tokens: 131072, and aggregated.parallel.tensor: 2 on ml.p5en.48xlarge",
        ),
        (recipe(R1, aggregated=role(tensor=8, instance="ml.p5.48xlarge")), "needs", "instance_type: ml.p5e"),
        (
            recipe("openai/gpt-oss-20b", prefill=role("ml.g6e.xlarge"), decode=role("ml.g6e.xlarge")),
            "0 available on ml.g6e.xlarge",
            "instance_type: ml.g5.8xlarge",
        ),
        (
            recipe("Qwen/Qwen3-32B", aggregated=role(tensor=3)),
            "3 does not divide the 64 attention heads",
            "aggregated.parallel.tensor: 1",
        ),
        (
            recipe("Qwen/Qwen3-235B-A22B-FP8", aggregated=role(tensor=8)),
            "at most 4 available",
            "aggregated.parallel.tensor: 2",
        ),
        (
            recipe("Qwen/Qwen3-32B", 40_000, aggregated=role("ml.p5.48xlarge")),
            "KV cache for one sequence of 40000 tokens, 29760 tokens available",
            "aggregated.parallel.tensor: 2",
        ),
        (
            recipe(aggregated=role(tensor=4, engine={"kv-cache-memory-bytes": "120G"})),
            "kv-cache-memory-bytes: needs 160.4 GiB",
            "",
        ),
    ],
)
def test_the_nearest_that_fits(written: Recipe, problem: str, near: str) -> None:
    lines = refused(written)
    assert problem in lines[0] + lines[-2]
    assert lines[-1].startswith(f"the nearest that fits: {near}")


def test_kv_heads_that_no_tp_divides() -> None:
    known = find(LLAMA)
    assert known
    odd = replace(known, kv=replace(known.kv, kv_heads=6))
    with pytest.raises(CapacityError, match="4 neither divides nor is a multiple of the 6 KV heads"):
        capacity.check(recipe(aggregated=role(tensor=4)), odd)


def test_an_expert_spread_whole_may_be_quantised_in_any_blocks() -> None:
    assert capacity.check(recipe("Qwen/Qwen3-235B-A22B-FP8", aggregated=role(tensor=8, expert=True))).nodes == 1


def test_tcp_that_is_allowed_needs_no_efa() -> None:
    plain: dict[str, Any] = {"prefill": role("ml.g6e.xlarge"), "decode": role("ml.g6e.xlarge")}
    found = capacity.check(recipe("openai/gpt-oss-20b", **plain, kv_transfer={"allow_tcp": True}))
    assert found.nodes == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"aggregated": {}}, ["aggregated: no instance_type"]),
        ({"model": "someone/else", "aggregated": role()}, ["memory and KV cache: nothing is known of someone/else"]),
        (
            {"model": "openai/gpt-oss-20c", "aggregated": role()},
            ["memory and KV cache: nothing is known of openai/gpt-oss-20c; did you mean openai/gpt-oss-20b?"],
        ),
        (
            {"aggregated": {}, "accelerator": "cpu", "kv_transfer": {"fabric": "tcp"}},
            ["everything: the recipe runs on CPUs"],
        ),
    ],
)
def test_what_was_not_checked_is_said(change: dict[str, Any], says: list[str]) -> None:
    assert list(capacity.check(recipe(**change)).unchecked) == says


def test_an_instance_type_nobody_knows_is_a_problem() -> None:
    (problem, _) = refused(recipe(aggregated=role("ml.p5en.24xlarge")))
    assert problem.endswith("nothing is known of ml.p5en.24xlarge; did you mean ml.p5en.48xlarge?")


def test_over_tcp_both_roles_share_machines() -> None:
    both: dict[str, Any] = {"prefill": role(), "decode": role(tensor=4)}
    assert capacity.check(recipe("someone/else", **both, kv_transfer={"fabric": "tcp"})).nodes == 1
    apart = capacity.check(recipe("someone/else", **both))
    assert (apart.nodes, capacity.instances(apart)) == (2, {"ml.p5en.48xlarge": 2})


def test_machines_are_counted_for_a_model_nobody_knows() -> None:
    found = capacity.check(recipe("someone/else", aggregated=role(replicas=3, tensor=4)))
    assert (found.gpus, found.nodes, found.kv_bytes_per_token) == (12, 2, None)
    assert found.role("aggregated").memory is None
    assert found.role("aggregated").worker_tokens is None
    assert refused(recipe("someone/else", aggregated=role(tensor=16)))[0].endswith(
        "needs 16 GPUs of one node, 8 available on ml.p5en.48xlarge"
    )


def test_what_is_not_counted_is_said() -> None:
    engine = {"quantization": "fp8", "kv-cache-dtype": "nvfp4", "gpu-memory-utilization": "most"}
    written = recipe(
        prefill=role(tensor=2) | {"autoscaling": {"min": 1, "max": 3}},
        decode=role(tensor=4),
        aggregated=None,
    )
    document = written.model_dump()
    document["model"]["adapters"] = [{"name": "a", "path": "/a"}]
    for part in ("prefill", "decode"):
        document[part]["engine"] = engine
    notes = capacity.check(parse(document, "x.yaml")).notes
    assert notes[0] == "adapters: their weights are not counted"
    assert "prefill.engine.quantization: weights are counted as published" in notes
    assert "decode.engine.kv-cache-dtype: nvfp4 is counted as bfloat16" in notes
    assert "decode.engine.gpu-memory-utilization: most is no number; vLLM's default is counted" in notes
    assert "prefill: counted for 1 workers; autoscaling goes to 3" in notes


def test_workers_that_share_an_efa_device_are_named() -> None:
    shared = role("ml.p4de.24xlarge", replicas=8)
    found = pair(shared, shared, "openai/gpt-oss-20b")
    assert found.role("prefill").efa_per_node == 0
    assert "prefill: ml.p4de.24xlarge has 4 EFA devices for 8 GPUs; workers share one" in found.notes[0]


def test_prices_are_a_dated_reference_of_ec2() -> None:
    price = prices.reference("ml.p6-b200.48xlarge")
    assert price
    assert price.usd_per_hour == 113.9328
    assert not price.stale(date(2026, 10, 18))
    assert price.stale(date(2026, 10, 19))
    assert price.text(date(2026, 8, 1)) == (
        "$113.93/h (EC2 on-demand, a reference: HyperPod bills its own rates; 2026-07-20)"
    )
    assert "128 days old: look it up again" in price.text(date(2026, 11, 25))


def test_every_instance_but_one_has_a_price() -> None:
    assert [one.name for one in INSTANCES if not prices.reference(one.name)] == ["ml.p5e.48xlarge"]
    assert prices.reference("ml.p6e-gb200.36xlarge") is None

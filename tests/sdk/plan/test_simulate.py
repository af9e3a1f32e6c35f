"""Simulated fleets: nothing is lost, and what can be worked out by hand comes out so."""

from __future__ import annotations

import csv
import gzip
import json
import random
import statistics
from dataclasses import replace
from pathlib import Path

import pytest

from hyperpd import models
from hyperpd.errors import RecipeError
from hyperpd.plan.replay import Rules, Slice, play, router_of
from hyperpd.plan.simulate import Outcome, Window, fleet_of, measure, recipe_of, simulate
from hyperpd.plan.simulate.sequence import Limits
from hyperpd.plan.steptime import Gpu, step_time
from hyperpd.plan.trace import BLOCK_TOKENS, Request, read, spread
from tests.sdk.plan.fleets import OBJECTIVES, SHAPE, fleet, plain, router

DATA = Path(__file__).parents[2] / "data"
ALL = Window(0.0, 1e9)


@pytest.mark.parametrize("layout", ["4xtp4", "2p2d", "1p3d", "3p1d"])
def test_every_request_ends_once_and_nothing_stays_booked(layout: str) -> None:
    served = fleet(layout)
    requests = spread(read(DATA / "traces" / "mooncake_conversation.jsonl.gz", 131_072), 1).requests
    routed = router(served, "marginal_slo_cost", "predicted_cost")
    outcome = simulate(served, requests, [routed], ALL)
    assert [one.request for one in outcome.served] == list(requests)
    for one in outcome.served:
        assert one.request.arrival_s < one.first_s <= one.end_s <= outcome.end_s
        assert 0 <= one.cached_tokens < one.request.input_tokens
    gaps = sum(request.output_tokens - 1 for request in requests)
    assert sum(outcome.itl.values()) == pytest.approx(gaps, abs=outcome.preemptions)
    for side in (routed.decode, routed.prefill):
        for worker in side.fleet.named.values():
            assert (worker.running, worker.waiting, worker.prefill_tokens, worker.kv_tokens) == (0, 0, 0, 0)
    assert (outcome.moved_bytes > 0) == any(one.remote for one in outcome.served) == (layout != "4xtp4")


def test_the_same_seed_gives_the_same_run() -> None:
    served = fleet("2p2d")
    trace = read(DATA / "traces" / "mooncake_conversation.jsonl.gz", 131_072)

    def run(seed: int) -> Outcome:
        return simulate(served, spread(trace, seed).requests, [router(served, "least_tokens", "always", seed)], ALL)

    assert run(3) == run(3)
    assert run(3).served != run(4).served


def test_one_request_alone() -> None:
    """3,000 tokens in chunks of 2,048, then 9 decode steps: 2 x 10 ms + 3,000 x 0.1 ms, 9 x 10.1 ms."""
    served = plain("aggregated", limits=Limits(2048, 64, 100_000))
    one = simulate(served, [Request(1.0, 3000, 10)], [router(served)], ALL).served[0]
    assert one.ttft_s == pytest.approx(0.320)
    assert one.end_s - one.first_s == pytest.approx(9 * 0.0101)
    assert one.tpot_s == pytest.approx(0.0101)


def test_one_handoff_alone() -> None:
    """Prefill, the handoff, the bytes of 3,008 tokens in blocks of 16 over 1 GB/s, and decode's first step."""
    served = plain("prefill", "decode")
    outcome = simulate(served, [Request(1.0, 3000, 10)], [router(served)], ALL)
    moved_bytes = 3008 * 327_680
    assert outcome.moved_bytes == moved_bytes == SHAPE.kv_bytes(3000, 16)
    one = outcome.served[0]
    assert one.remote
    assert one.ttft_s == pytest.approx(0.310 + 0.005 + moved_bytes / 1e9 + 0.0101)
    assert one.end_s - one.first_s == pytest.approx(9 * 0.0101)


def test_waiting_is_that_of_a_queue_with_equal_services() -> None:
    """Poisson arrivals, each filling one step of 0.11 s: M/D/1, whose mean wait is rho S / 2 (1 - rho)."""
    served = plain("aggregated", limits=Limits(1000, 64, 100_000))
    draw = random.Random(5)
    service_s, busy = 0.110, 0.7
    now_s, requests = 0.0, []
    for _ in range(40_000):
        now_s += draw.expovariate(busy / service_s)
        requests.append(Request(now_s, 1000, 1))
    outcome = simulate(served, requests, [router(served)], ALL)
    wait_s = statistics.fmean(one.ttft_s for one in outcome.served) - service_s
    assert wait_s == pytest.approx(busy * service_s / (2 * (1 - busy)), rel=0.05)


def test_the_hit_rate_of_prompts_asked_again() -> None:
    """Four prompts of ten blocks and a token, each asked five times: four of five find their ten blocks."""
    served = plain("aggregated")
    tokens = 10 * BLOCK_TOKENS + 1
    prompts = [tuple(range(11 * number, 11 * number + 11)) for number in range(4)]
    requests = [Request(10.0 * turn, tokens, 2, prompts[turn % 4]) for turn in range(20)]
    outcome = simulate(served, requests, [router(served)], ALL)
    assert measure(outcome, OBJECTIVES).hit_rate == pytest.approx(0.8 * (tokens - 1) / tokens)
    assert [one.cached_tokens for one in outcome.served] == [0] * 4 + [tokens - 1] * 16


def test_a_prompt_that_is_here_whole_computes_its_last_block() -> None:
    served = plain("aggregated")
    requests = [Request(10.0 * turn, 2 * BLOCK_TOKENS, 1, (1, 2)) for turn in range(2)]
    first, second = simulate(served, requests, [router(served)], ALL).served
    assert (first.cached_tokens, second.cached_tokens) == (0, BLOCK_TOKENS)
    assert second.ttft_s == pytest.approx(0.010 + BLOCK_TOKENS * 100e-6)


def test_decode_fetches_only_what_it_has_not() -> None:
    served = plain("prefill", "decode")
    tokens = 4 * BLOCK_TOKENS
    requests = [Request(0.0, tokens, 2, (1, 2, 3, 4)), Request(100.0, tokens, 2, (1, 2, 8, 9))]
    outcome = simulate(served, requests, [router(served)], ALL)
    assert outcome.moved_bytes == (tokens + 2 * BLOCK_TOKENS) * SHAPE.kv_bytes_per_token


def test_memory_that_runs_out_is_taken_back_and_computed_anew() -> None:
    """Two answers of 1,500 tokens on 2,000 tokens of memory: the one that came later gives its memory up."""
    served = plain("aggregated", limits=Limits(8192, 64, 2000))
    outcome = simulate(served, [Request(0.0, 100, 1500), Request(0.1, 100, 1500)], [router(served)], ALL)
    assert outcome.preemptions == 1
    first, second = outcome.served
    assert first.end_s < second.end_s
    assert second.end_s - first.end_s > 0.010 * 500  # it had at most 900 steps before
    assert sum(outcome.itl.values()) >= 2 * 1499 - 1


def test_decodes_suffer_from_a_prefill_beside_them() -> None:
    """A prompt of 8,000 tokens stops a decode for a step of 0.81 s; on a worker of its own it does not."""
    requests = [Request(0.0, 100, 500), Request(2.0, 8000, 2)]
    together = simulate(plain("aggregated"), requests, [router(plain("aggregated"))], ALL)
    apart = simulate(plain("prefill", "decode"), requests, [router(plain("prefill", "decode"))], ALL)
    assert measure(together, OBJECTIVES).itl_ms["p99"] == pytest.approx(10.1, rel=0.02)
    assert max(together.itl) > max(apart.itl)
    assert together.served[0].tpot_s - apart.served[0].tpot_s == pytest.approx(0.800 / 499, rel=0.05)


def test_gateways_take_turns_and_see_each_other_by_what_engines_say() -> None:
    """After 5 s the first knows that the other's request runs beside its own, and picks the worker with one alone."""
    served = plain("aggregated", workers=2)
    first, second = (router(served, "least_tokens", "never") for _ in range(2))
    long = [Request(arrival_s, 100, 2000) for arrival_s in (0.0, 0.1, 0.2)]  # first: worker 0, second: 0, first: 1
    late = [Request(6.0, 100, 1), Request(7.0, 100, 1)]  # second, first
    outcome = simulate(served, [*long, *late], [first, second], ALL)
    assert [one.request for one in outcome.served] == [*long, *late]
    assert (first.decode.fleet.named["aggregated-1"].picked, second.decode.fleet.named["aggregated-1"].picked) == (3, 2)
    for worker in (*first.decode.fleet.named.values(), *second.decode.fleet.named.values()):
        assert (worker.running, worker.waiting, worker.prefill_tokens, worker.kv_tokens) == (0, 0, 0, 0)


def test_only_the_window_is_measured() -> None:
    served = plain("aggregated")
    requests = [Request(float(second), 100, 2) for second in range(10)]
    outcome = simulate(served, requests, [router(served)], Window(3.0, 4.0))
    assert [one.request.arrival_s for one in outcome.served] == [3.0, 4.0, 5.0, 6.0]
    assert sum(outcome.itl.values()) == 4
    assert measure(outcome, OBJECTIVES).goodput_per_s == 1.0


def test_a_layout_is_a_recipe_and_a_recipe_a_fleet() -> None:
    served = fleet_of(recipe_of("4p2d-tp2", instance="ml.p5en.48xlarge"))
    prefill, decode = served.roles
    assert (prefill.workers, decode.workers, decode.limits.chunk_tokens) == (4, 2, 8192)
    assert decode.link_bytes_s == 2 * 50e9  # of 3,200 Gbit/s, two GPUs of eight have 800
    assert fleet_of(recipe_of("4xtp4")).role("aggregated")


@pytest.mark.parametrize(
    ("layout", "instance", "says"),
    [
        ("2p", "ml.p5.48xlarge", "as in 2p2d"),
        ("2xtp4", "ml.p6-b200.48xlarge", "no step times for B200 179 GB"),
    ],
)
def test_what_cannot_be_simulated(layout: str, instance: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        fleet_of(recipe_of(layout, instance=instance))


def test_an_overloaded_engine_as_it_was_measured() -> None:
    """300 requests on a 4090, 65 s of mean TTFT: uncalibrated, mean TPOT and TTFT are within 35 %."""
    runs = DATA / "real-runs"
    known = json.loads((runs / "llmservingsim_vllm_rtx4090_llama-3.1-8b.meta.json").read_text())
    shape = replace(SHAPE, layers=32)
    llama = models.find("meta-llama/Llama-3.3-70B-Instruct")
    assert llama
    small = replace(
        llama,
        name="meta-llama/Llama-3.1-8B",
        kv=shape,
        attention_heads=32,
        hidden_size=4096,
        parameters=8_030_000_000,
        active_parameters=8_030_000_000,
        weights_bytes=16_060_522_496,
    )
    gpu = Gpu(1.008e12, 165.2e12, 32e9, "NVIDIA Ada whitepaper; accumulating in 32 bits")
    step = step_time(small, gpu, 1, shape.kv_bytes_per_token)
    engine = known["engine_kwargs"]
    limits = Limits(engine["max_num_batched_tokens"], engine["max_num_seqs"], known["kv_cache"]["num_kv_tokens"])
    served = plain("aggregated", limits=limits, step=step)
    with gzip.open(runs / "llmservingsim_vllm_rtx4090_llama-3.1-8b.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    requests = [
        Request(float(row["arrival_ms"]) / 1e3, int(row["input_length"]), int(row["output_length"])) for row in rows
    ]
    outcome = simulate(served, requests, [router_of(served, Rules("round_robin", "never"), OBJECTIVES, 0)], ALL)
    ttft_ms = [float(row["first_token_ms"]) - float(row["arrival_ms"]) for row in rows]
    tpot_ms = [
        (float(row["last_token_ms"]) - float(row["first_token_ms"])) / (int(row["output_length"]) - 1) for row in rows
    ]
    assert 1e3 * statistics.fmean(one.ttft_s for one in outcome.served) == pytest.approx(
        statistics.fmean(ttft_ms), rel=0.35
    )
    assert 1e3 * statistics.fmean(one.tpot_s for one in outcome.served) == pytest.approx(
        statistics.fmean(tpot_ms), rel=0.35
    )


def test_speed(capsys: pytest.CaptureFixture[str]) -> None:
    """Printed: how much faster than real time 16 workers are."""
    trace = read(DATA / "traces" / "mooncake_conversation.jsonl.gz", 131_072)
    part = Slice(length_s=60, warm_up_s=0, speed=3, start_s=0.0)
    played = play(fleet("8p8d"), trace, Rules(), OBJECTIVES, part, 0)
    with capsys.disabled():
        print(f"\n16 workers, {played.measures.requests} requests: {played.real_time:,.0f} times real time")
    assert played.measures.requests == 538

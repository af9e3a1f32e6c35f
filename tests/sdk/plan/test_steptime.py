"""Step times: their terms, and their form against measured runs."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from hyperpd import models
from hyperpd.errors import RecipeError
from hyperpd.plan.steptime import GPUS, Efficiency, gpu_of, step_time

REAL_RUNS = Path(__file__).parents[2] / "data" / "real-runs"
LLAMA = models.find("meta-llama/Llama-3.3-70B-Instruct")
assert LLAMA
STEP = step_time(LLAMA, GPUS["H100", 80], 4, LLAMA.kv.kv_bytes_per_token)
PERFECT = Efficiency(memory=1, arithmetic=1, attention=1, link=1, step_s=0, all_reduce_s=0)


def test_a_decode_reads_weights_and_cache() -> None:
    """With nothing lost: 141.1 GB of weights and 327,680 bytes for each token over four times 3.35 TB/s."""
    step = step_time(LLAMA, GPUS["H100", 80], 4, LLAMA.kv.kv_bytes_per_token, PERFECT)
    read_s = (141_107_412_992 + 10_000 * 327_680) / (4 * 3.35e12)
    assert step.decode_s(1, 10_000) == pytest.approx(read_s, rel=2e-3)  # the rest: one token's all-reduce


def test_a_prefill_computes() -> None:
    """With nothing lost, 8,192 tokens are 2 x 70.6e9 operations each over four times 989.4 TFLOP/s, and attention."""
    one = replace(GPUS["H100", 80], link_bytes_s=1e30)
    step = step_time(LLAMA, one, 4, LLAMA.kv.kv_bytes_per_token, PERFECT)
    operations = 8192 * 2 * 70.6e9 + 4 * 80 * 8192 * 8192**2 / 2
    assert step.prefill_s(8192, 8192) == pytest.approx(operations / (4 * 989.4e12), rel=1e-6)


def test_chunks_and_what_is_cached() -> None:
    whole, chunked = STEP.prefill_s(8192, 8192), STEP.prefill_s(8192, 2048)
    assert whole < chunked < 1.05 * whole + 4 * STEP.overhead_s
    assert STEP.prefill_s(8192, 8192, 8192) == 0
    assert STEP.prefill_s(16384, 8192) - STEP.prefill_s(8192, 8192) == pytest.approx(STEP.prefill_s(16384, 8192, 8192))


def test_few_tokens_read_few_experts() -> None:
    sparse = models.find("openai/gpt-oss-120b")
    assert sparse
    step = step_time(sparse, GPUS["H100", 80], 1, sparse.kv.kv_bytes_per_token, PERFECT)
    one, all_s = step.tokens_s(1), sparse.weights_bytes / 3.35e12
    rest_s = (sparse.weights_bytes - sparse.expert_bytes) / 3.35e12
    assert one == pytest.approx(rest_s + (all_s - rest_s) * 4 / 128)
    assert step.tokens_s(500) == pytest.approx(all_s, rel=0.01)


def test_an_unknown_gpu() -> None:
    with pytest.raises(RecipeError, match="no step times for T4 16 GB; there are A100 40 GB"):
        gpu_of("T4", 16)


def test_prefills_as_splitwise_measured_them() -> None:
    """Llama-2-70B on A100s at TP2 and TP4, 512 to 8,192 tokens: within 35 % uncalibrated."""
    gpu = GPUS["A100", 80]
    seen = 0
    with (REAL_RUNS / "splitwise_dgx_timings_llama2-70b_a100.csv").open() as file:
        for row in csv.DictReader(file):
            tensor, tokens = int(row["tp"]), int(row["prompt_tokens_per_request"])
            if tensor > 4 or tokens < 512 or row["batch_size"] != "1":
                continue
            step = step_time(LLAMA, gpu, tensor, LLAMA.kv.kv_bytes_per_token)
            assert 1e3 * step.prefill_s(tokens, tokens) == pytest.approx(float(row["prompt_time_ms_median"]), rel=0.35)
            seen += 1
    assert seen >= 10

"""What a calibration makes of times whose engine is known: its figures again, and none that are noise."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from hyperpd.errors import Overloaded, RecipeError
from hyperpd.plan import calibrate
from hyperpd.plan.calibrate import Figure, Plan, Round
from hyperpd.plan.probe import Mode, Times
from hyperpd.recipe import Recipe, load, parse
from hyperpd.routing.calibration import Calibration

CHUNK, KV = 2048, 4096
TRUE = Calibration(20_000, 0.02, KV, 2e9, handoff_s=0.01, attention_s=2e-9)
PLANNED = Plan(CHUNK, 4 * CHUNK, 4, 16, True, KV, 320)


@dataclass
class Engine:
    """A fleet in virtual time: what each request takes follows from `true`, give or take `noise` of it."""

    true: Calibration = TRUE
    noise: float = 0.02
    sent: list[tuple[int, int, Mode]] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    draw: random.Random = field(default_factory=lambda: random.Random(1))

    async def ask(self, prompt_tokens: int, output_tokens: int, mode: Mode) -> Times:
        self.sent.append((prompt_tokens, output_tokens, mode))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        first_s = self.true.prefill_s(prompt_tokens, 0) * self._about()
        if mode == "pd":
            first_s += prompt_tokens * KV / self.true.pair_bytes_per_s + self.true.handoff_s * self._about()
        return Times(first_s, first_s + (output_tokens - 1) * self.true.step_s * self._about(), output_tokens)

    def _about(self) -> float:
        return self.draw.uniform(1 - self.noise, 1 + self.noise)


async def figures(engine: Engine, planned: Plan = PLANNED) -> Mapping[str, Figure]:
    return calibrate.fit(planned, *await calibrate.measure(planned, engine.ask, lambda _: None, lambda: 0.0))


def recipe(**model: Any) -> Recipe:
    document = load("tiny-cpu-1p1d").recipe.model_dump()
    document["model"] |= model
    return parse(document, "test")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shape = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 4, "hidden_size": 256}
    (tmp_path / "config.json").write_text(json.dumps({**shape, "head_dim": 64, "vocab_size": 320}))
    return tmp_path


async def test_an_engine_without_noise_is_found_again() -> None:
    found = await figures(Engine(noise=0.0))
    assert {name: one.value for name, one in found.items()} == {
        "prefill_tokens_per_s": pytest.approx(20_000),
        "attention_s": pytest.approx(2e-9),
        "step_s": pytest.approx(0.02),
        "kv_bytes_per_token": KV,
        "pair_bytes_per_s": pytest.approx(2e9),
        "handoff_s": pytest.approx(0.01),
    }


async def test_noise_shows_as_an_interval_around_the_truth() -> None:
    found = await figures(Engine(), replace(PLANNED, rounds=101))
    rate, step = found["prefill_tokens_per_s"], found["step_s"]
    assert (rate.samples, step.samples) == (101, 3 * 16)
    for figure, true in ((rate, 20_000), (step, 0.02)):
        assert figure.low is not None
        assert figure.high is not None
        assert figure.low < true < figure.high < 1.02 * figure.low


async def test_a_rate_that_noise_hides_is_not_made_up() -> None:
    """A way of which longer prompts take no longer: all of what pd takes beside is the handoff's."""
    found = await figures(Engine(replace(TRUE, pair_bytes_per_s=1e15)))
    lost = found["pair_bytes_per_s"]
    assert (lost.value, "a longer prompt took no longer to move" in lost.why) == (None, True)
    assert found["handoff_s"].value == pytest.approx(0.01, abs=0.005)


async def test_more_rounds_find_what_noise_hides() -> None:
    """A tenth of a chunk's prefill, to which other work of the machine adds up to half of it either way."""
    true = replace(TRUE, handoff_s=0.1 * CHUNK / 20_000, pair_bytes_per_s=1e15)
    few = (await figures(Engine(true, 0.5)))["handoff_s"]
    many = (await figures(Engine(true, 0.5), replace(PLANNED, rounds=900)))["handoff_s"]
    assert (few.value, "of 9 samples" in few.why) == (None, True), few
    assert many.value == pytest.approx(true.handoff_s, rel=0.5)


@pytest.mark.parametrize(("count", "left_out"), [(6, 0), (8, 0), (9, 1), (15, 3), (100, 39)])
def test_a_median_lies_where_the_tables_say(count: int, left_out: int) -> None:
    """Order statistics' two-sided 95 % interval, as in any table of the sign test."""
    found = calibrate.fit(PLANNED, [Round(1, 2, 2, 4)] * 6, [1.0 + n for n in range(count)])["step_s"]
    assert (found.low, found.high) == (1.0 + left_out, float(count - left_out))


async def test_a_handoff_that_is_faster_than_none_is_not_made_up() -> None:
    """Where prefill workers compute faster than those that decode."""
    rounds = [Round(0.1 + n / 1e4, 0.4, 0.05, 0.2) for n in range(7)]
    found = calibrate.fit(PLANNED, rounds, [0.02, 0.02])
    assert (found["pair_bytes_per_s"].value, found["handoff_s"].value) == (None, None)
    assert "its first token no later, in 7 of 7 samples" in found["handoff_s"].why


async def test_attention_that_does_not_show_leaves_the_plain_rate() -> None:
    rounds = [Round(0.1, 0.39 + n / 1e3) for n in range(7)]
    found = calibrate.fit(replace(PLANNED, remote=False), rounds, [0.02, 0.02])
    assert (found["attention_s"].value, found["prefill_tokens_per_s"].value) == (None, CHUNK / 0.1)
    assert found["pair_bytes_per_s"] == found["handoff_s"] == Figure(None, why="there is no prefill role")


async def test_attention_is_never_more_than_the_whole_prompt_took() -> None:
    """The long prompt took 17 times as long: with what that says of attention, a chunk would take less than 0 s."""
    found = calibrate.fit(replace(PLANNED, remote=False), [Round(0.1, 1.7)] * 7, [0.02, 0.02])
    assert (found["attention_s"].value, found["prefill_tokens_per_s"].value) == (None, CHUNK / 0.1)


async def test_each_round_has_each_prompt_once_and_the_first_one_warms_up() -> None:
    engine, told = Engine(), list[str]()
    clock = iter(range(100))
    rounds, gaps_s = await calibrate.measure(PLANNED, engine.ask, told.append, lambda: float(next(clock)))
    assert (len(rounds), len(gaps_s)) == (9, 48)
    alone = [one for one in engine.sent if one[1] == 2]
    order = [(CHUNK, 2, "aggregated"), (CHUNK, 2, "pd"), (4 * CHUNK, 2, "aggregated"), (4 * CHUNK, 2, "pd")]
    assert alone == order * 10
    assert [one for one in engine.sent if one[1] != 2] == [(32, 64, "aggregated")] * 64
    assert engine.most_at_once == 16
    assert len(engine.sent) == PLANNED.requests
    assert sum(one[0] for one in engine.sent) == PLANNED.tokens
    assert told[1] == "expected: about 12 s more"  # 9 rounds and 3 batches of 1 s each
    assert told[2].startswith("round 1 of 9: first token of 2,048 and 8,192 tokens after 0.")


@pytest.mark.parametrize(("streams", "batches"), [(1, 6), (2, 3), (5, 3)])
async def test_few_streams_make_more_batches(streams: int, batches: int) -> None:
    engine, planned, told = Engine(), replace(PLANNED, streams=streams), list[str]()
    _, gaps_s = await calibrate.measure(planned, engine.ask, told.append, lambda: 0.0)
    assert len(gaps_s) == batches * streams >= calibrate.LEAST_ROUNDS
    assert told[-1].startswith(f"batch {batches} of {batches}: ")
    assert (len(engine.sent), sum(one[0] for one in engine.sent)) == (planned.requests, planned.tokens)


async def test_a_refusal_ends_it_and_every_stream() -> None:
    ended = []

    async def ask(prompt_tokens: int, output_tokens: int, mode: Mode) -> Times:
        if output_tokens == 2:
            return Times(0.1, 0.2, 2)
        if not ended:
            ended.append("refused")
            raise Overloaded("too many at once")
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")
        raise AssertionError

    with pytest.raises(Overloaded, match="too many at once"):
        await calibrate.measure(PLANNED, ask, lambda _: None, lambda: 0.0)
    assert ended.count("cancelled") == len(ended) - 1


@pytest.mark.parametrize(
    ("max_len_tokens", "short", "long", "chunks"),
    [(16_384, 2048, 8192, 4), (8194, 2048, 8192, 4), (8193, 512, 2048, 1), (2048, 511, 2046, 1)],
)
def test_prompts_are_a_chunk_and_four_or_what_the_model_takes(
    folder: Path, max_len_tokens: int, short: int, long: int, chunks: int
) -> None:
    planned = calibrate.plan(recipe(max_len_tokens=max_len_tokens), folder)
    assert (planned.short_tokens, planned.long_tokens, planned.long_chunks) == (short, long, chunks)
    assert planned.chunk_tokens == (long if chunks == 1 else short)
    assert (planned.kv_bytes_per_token, planned.vocabulary, planned.streams) == (4096, 320, 8)


@pytest.mark.parametrize(
    ("engine", "limits", "streams"), [({}, {}, 8), ({"max-num-seqs": 4}, {}, 4), ({}, {"concurrent_requests": 3}, 3)]
)
def test_streams_are_a_usual_batch_or_what_may_run(
    folder: Path, engine: dict[str, int], limits: dict[str, int], streams: int
) -> None:
    document = recipe().model_dump()
    document["decode"]["engine"] |= engine
    document["gateway"]["limits"] |= limits
    assert calibrate.plan(parse(document, "test"), folder).streams == streams


async def test_one_chunk_tells_nothing_of_attention(folder: Path) -> None:
    planned = calibrate.plan(recipe(), folder)
    found = await figures(Engine(replace(TRUE, attention_s=0.0), noise=0.0), planned)
    assert found["prefill_tokens_per_s"].value == pytest.approx(20_000)
    assert (found["attention_s"].value, "no prompt of 4 chunks" in found["attention_s"].why) == (None, True)
    assert found["pair_bytes_per_s"].value == pytest.approx(2e9)


def test_a_shipped_recipe_knows_its_model() -> None:
    planned = calibrate.plan(load("llama-3.3-70b-p5en-4p2d").recipe)
    assert (planned.kv_bytes_per_token, planned.vocabulary) == (327_680, 128_256)
    assert planned.streams == 2 * 8


async def test_without_a_prefill_role_one_path_is_measured(folder: Path) -> None:
    planned, engine = calibrate.plan(load("tiny-cpu-aggregated-2x").recipe, folder), Engine(noise=0.0)
    found = await figures(engine, planned)
    assert {mode for *_, mode in engine.sent} == {"aggregated"}
    assert (len(engine.sent), engine.most_at_once) == (planned.requests, 2 * 8)
    assert (found["pair_bytes_per_s"].value, found["pair_bytes_per_s"].why) == (None, "there is no prefill role")


def test_what_cannot_be_measured_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as refused:
        calibrate.plan(recipe(max_len_tokens=64), tmp_path)
    short, unknown = refused.value.problems
    assert "max_len_tokens: prompts of 62 tokens at most are too short" in short
    assert "no config.json here; give the folder of a Hugging Face model; --model-folder names it" in unknown


async def test_the_file_is_a_recipes_block() -> None:
    found = await figures(Engine())
    text = calibrate.text(found, ["measured", "here"])
    assert text.startswith("# measured\n# here\ngateway:\n  calibration:\n    prefill_tokens_per_s: ")
    block = yaml.safe_load(text)["gateway"]["calibration"]
    assert block.pop("kv_bytes_per_token") == KV
    for name, value in block.items():
        assert value == pytest.approx(found[name].value, rel=1e-3), name
    assert "\n    pair_bytes_per_s: 2000000000  # median of 9; 95 % confidence: " in calibrate.text(
        {"pair_bytes_per_s": Figure(1_999_999_123.4, 1.0, 2.0, 9)}, []
    )
    read = parse({**load("tiny-cpu-1p1d").recipe.model_dump(), **yaml.safe_load(text)}, "test")
    assert read.gateway.calibration


def test_what_was_not_measured_stands_there_as_a_comment() -> None:
    found = calibrate.fit(PLANNED, [Round(0.1, 0.4 + n / 1e3, 0.05, 0.2) for n in range(7)], [1e-5, 1e-5])
    text = calibrate.text(found, [])
    assert "    # pair_bytes_per_s: not measurable here: a longer prompt took no longer" in text
    block = yaml.safe_load(text)["gateway"]["calibration"]
    assert block["step_s"] == 1e-5  # no text, as 1e-05 would be
    assert "handoff_s" not in block
    assert parse({**load("tiny-cpu-1p1d").recipe.model_dump(), **yaml.safe_load(text)}, "test").gateway.calibration

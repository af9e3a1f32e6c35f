"""The requests of a calibration, through a real gateway: each path is taken as it was asked for, and timed."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from hyperpd.errors import DecodeFailed, PrefillFailed, RecipeError, Rejected, RequestError
from hyperpd.plan.probe import Probe, Times
from tests.container.stack import Stack, running, tiny
from tests.fakes import wire

MODEL = "tiny-llama"


@pytest.fixture
async def stack() -> AsyncIterator[Stack]:
    async with running(tiny()) as stack:
        yield stack


@pytest.fixture
async def probe(stack: Stack) -> AsyncIterator[Probe]:
    probe = Probe(str(stack.http.base_url), 320)
    await probe.check(MODEL, 2048)
    yield probe
    await probe.close()


async def test_both_paths_are_asked_for_and_taken(stack: Stack, probe: Probe) -> None:
    for mode in ("aggregated", "pd"):
        times = await probe.ask(40, 2, mode)
        assert times.tokens == 2
        assert 0 < times.first_s <= times.last_s
    (alone, handed), (prefilled,) = stack.decode.bodies, stack.prefill.bodies
    assert handed["prompt"] == prefilled["prompt"] != alone["prompt"]
    for body in (alone, handed):
        assert len(body["prompt"]) == 40
        assert all(3 <= token < 240 for token in body["prompt"])
        assert (body["max_tokens"], body["ignore_eos"], body["temperature"]) == (2, True, 0)


async def test_a_prompt_that_was_recomputed_measures_nothing(stack: Stack, probe: Probe) -> None:
    stack.prefill.fault = "500"
    with pytest.raises(PrefillFailed, match="that was to be prefilled remotely was recomputed"):
        await probe.ask(40, 2, "pd")


async def test_what_is_refused_says_why(stack: Stack, probe: Probe) -> None:
    with pytest.raises(Rejected, match="max_tokens"):
        await probe.ask(40, 4096, "aggregated")
    stack.decode.fault = "late_error"
    stack.decode.proceed.set()
    with pytest.raises(DecodeFailed, match="KV load failed"):
        await probe.ask(40, 2, "aggregated")


async def test_the_gateway_serves_what_the_recipe_says(stack: Stack, probe: Probe) -> None:
    with pytest.raises(RecipeError, match="serves tiny-llama, the recipe other: give the recipe that it runs"):
        await probe.check("other", 2048)
    with pytest.raises(RecipeError, match="takes 2048 tokens, the recipe says more"):
        await probe.check(MODEL, 4096)


@pytest.mark.parametrize("most", ['"2048"', "[]", "2048.5"])
async def test_a_longest_prompt_that_is_no_number_is_refused(most: str) -> None:
    models = b'{"data": [{"id": "tiny-llama", "max_model_len": %s}]}' % most.encode()
    with wire.serve(lambda _: wire.Answer(200, {}, models)) as url:
        probe = Probe(url, 320)
        with pytest.raises(RequestError, match="v1/models does not speak OpenAI's API: a max_model_len that is no"):
            await probe.check(MODEL, 2048)
        await probe.close()


async def test_times_are_the_clocks() -> None:
    assert Times(1.0, 4.0, 4).gap_s == 1.0
    ticks = iter((10.0, 10.5, 12.5))
    chunk = b'data: {"choices": [{"text": ""}]}\n\n'
    usage = b'data: {"choices": [], "usage": {"completion_tokens": 5}}\n\ndata: [DONE]\n\n'
    answer = wire.Answer(200, {"Content-Type": "text/event-stream"}, chunk + chunk + usage)
    with wire.serve(lambda _: answer) as url:
        probe = Probe(url, 320, clock=lambda: next(ticks))
        assert await probe.ask(4, 5, "aggregated") == Times(0.5, 0.5, 5)
        await probe.close()


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"data: [DONE]\n\n", "a stream of 0 tokens"),
        (b"data: 1\n\n", "no completion chunk"),
        (b"data: {\n\n", "no completion chunk"),
    ],
)
async def test_what_is_no_stream_of_tokens_is_refused(said: bytes, error: str) -> None:
    with wire.serve(lambda _: wire.Answer(200, {}, said)) as url:
        probe = Probe(url, 320)
        with pytest.raises(RequestError, match=error):
            await probe.ask(4, 2, "aggregated")
        await probe.close()

"""Decisions of the gateway as it runs: where requests go, what is said of it, and that what is booked is returned."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import aiohttp
import httpx
import pytest

from hyperpd.model import Model
from hyperpd.recipe import load, shipped
from hyperpd.routing.worker import Worker
from hyperpd_runtime.gateway import calibration
from hyperpd_runtime.gateway.discovery import Endpoint
from hyperpd_runtime.gateway.member import Member
from hyperpd_runtime.gateway.pool import Pool
from hyperpd_runtime.gateway.routing import Routing
from hyperpd_runtime.gateway.scrape import Figures
from tests.container.stack import Stack, counted, routed, running, tiny, until
from tests.fakes.engine import FakeEngine

BLOCK = 128
EXPLAIN = {"x-hyperpd-explain": "1"}


@dataclass
class Fleet:
    """A gateway, and its workers by name."""

    stack: Stack
    engines: dict[str, FakeEngine]

    def member(self, name: str) -> Member:
        return next(member for member in self.stack.pool.members if member.name == name)

    def workers(self) -> list[Worker]:
        router = self.stack.pool.routing.router
        return [*router.decode.fleet.named.values(), *router.prefill.fleet.named.values()]

    def served(self, prompt: list[int]) -> list[str]:
        """Who decoded that prompt, once for each time."""
        return [
            name
            for name, engine in self.engines.items()
            for body in engine.bodies
            if name.startswith("decode") and body.get("prompt") == prompt
        ]

    async def explained(self, answer: httpx.Response) -> dict[str, Any]:
        """The last decision on a request."""
        request_id = answer.headers["x-hyperpd-request-id"]
        decision: dict[str, Any] = self.stack.pool.routing.explained.explain(request_id)["decisions"][-1]
        return decision


@contextlib.asynccontextmanager
async def fleet(decodes: int = 2, prefills: int = 1, **gateway: Any) -> AsyncIterator[Fleet]:
    """Workers that are well, all pairs proven."""
    async with running(tiny(gateway=gateway)) as stack, contextlib.AsyncExitStack() as more:
        engines = {"prefill-0": stack.prefill, "decode-0": stack.decode}
        for role, count in (("prefill", prefills), ("decode", decodes)):
            for n in range(1, count):
                engine = engines[f"{role}-{n}"] = FakeEngine(stack.leases)
                await engine.start()
                more.push_async_callback(engine.stop)
        stack.pool.update(Endpoint(name.partition("-")[0], name, each.url) for name, each in engines.items())
        for engine in engines.values():
            engine.pause_s = 0
        for member in stack.pool.members:
            member.healthy = True
        for pair in stack.pool.pairs:
            pair.proven = True
        yield Fleet(stack, engines)
        for engine in engines.values():
            engine.proceed.set()


def prompt(seed: int, tokens: int) -> list[int]:
    draw = random.Random(seed)
    return [draw.randrange(3, 250) for _ in range(tokens)]


async def test_a_conversation_goes_where_it_is_cached() -> None:
    async with fleet(decodes=3, decider="never") as run:
        talks = [prompt(seed, 5 * BLOCK) for seed in range(6)]
        turns = [list(talk) for talk in talks]
        for turn in range(3):
            for number, talk in enumerate(turns):
                answer = await run.stack.ask(prompt=talk)
                assert answer.status_code == 200
                cached = (await run.explained(answer))["decode"]["cached_tokens"]
                assert cached == (len(talk) - BLOCK if turn else 0)
                turns[number] = talk + prompt(100 + number, BLOCK)
        homes = [run.served(talk) for talk in talks]
        assert {len(home) for home in homes} == {1}
        assert {home for (home,) in homes} == {"decode-0", "decode-1", "decode-2"}  # and not all at one


async def test_a_prompt_is_prefilled_where_it_costs_less() -> None:
    async with fleet(decodes=1, decider="predicted_cost") as run:
        stack = run.stack
        idle = await stack.ask(EXPLAIN, prompt=prompt(1, 1900))
        assert idle.headers["x-hyperpd-decision"].endswith("routing=cost_local; served=local")
        stack.decode.fault = "hang"
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(stack.ask(prompt=prompt(2, 1900), stream=True))
            await until(lambda: stack.decode.running)
            stack.decode.fault = ""
            cold = await stack.ask(EXPLAIN, prompt=prompt(3, 1900))
            assert cold.headers["x-hyperpd-decision"].endswith("routing=remote; served=pd")
            decision = await run.explained(cold)
            assert decision["remote_cost"] < decision["local_cost"]
            stack.decode.proceed.set()
        assert waiting.result().status_code == 200
        assert [len(body["prompt"]) for body in stack.prefill.bodies] == [1900]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("round_robin", {"decode-0", "decode-1"}), ("least_tokens", {"decode-1"}), ("marginal_slo_cost", {"decode-1"})],
)
async def test_a_policy_by_its_name(policy: str, expected: set[str]) -> None:
    """decode-0 has a long prompt before it."""
    async with fleet(decider="never", policy=policy) as run:
        stack = run.stack
        stack.decode.fault = "hang"
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(stack.ask(prompt=prompt(1, 1900), stream=True))
            await until(lambda: stack.decode.running)
            assert {routed(stack.pool)[0] for _ in range(4)} == expected
            stack.decode.proceed.set()


async def test_a_worker_that_left_or_is_ill_gets_nothing_and_is_forgotten() -> None:
    async with fleet(decider="never") as run:
        pool, talk = run.stack.pool, prompt(1, 5 * BLOCK)
        await run.stack.ask(prompt=talk)
        (home,) = run.served(talk)
        (other,) = {"decode-0", "decode-1"} - {home}
        run.member(home).healthy = False
        assert routed(pool)[0] == routed(pool)[0] == other
        run.member(home).healthy = True
        assert (await run.explained(await run.stack.ask(prompt=talk)))["decode"]["worker"] == home
        endpoints = [member.endpoint for member in pool.members]
        pool.update(endpoint for endpoint in endpoints if endpoint.name != home)
        assert (await run.explained(await run.stack.ask(prompt=talk)))["decode"]["worker"] == other
        run.engines[other].bodies.clear()
        pool.update(endpoints)  # back, and nothing is held of what was known of its cache
        run.member(home).healthy = True
        for pair in pool.pairs:
            pair.proven = True
        assert (await run.explained(await run.stack.ask(prompt=talk)))["decode"]["worker"] == other


async def test_a_cache_that_may_be_wrong_is_no_reason_to_go_there() -> None:
    async with fleet(decodes=1, decider="never") as run:
        for cached in (0, 4 * BLOCK):
            answer = await run.stack.ask(prompt=prompt(1, 5 * BLOCK))
            assert (await run.explained(answer))["decode"]["cached_tokens"] == cached
        run.stack.flow._hide_cache(run.member("decode-0"))
        answer = await run.stack.ask(prompt=prompt(1, 5 * BLOCK))
        assert (await run.explained(answer))["decode"]["cached_tokens"] == 0


async def test_a_worker_that_comes_back_may_be_another_with_nothing_cached() -> None:
    async with fleet(decodes=1, decider="never") as run, aiohttp.ClientSession() as session:
        talk, member = prompt(1, 5 * BLOCK), run.member("decode-0")
        await run.stack.ask(prompt=talk)
        for healthy in (False, True):
            run.engines["decode-0"].well = healthy
            await run.stack.pool._probe(session, member)
            assert member.healthy is healthy
        assert (await run.explained(await run.stack.ask(prompt=talk)))["decode"]["cached_tokens"] == 0


async def test_a_session_goes_on_where_its_answer_is() -> None:
    """Of the same prompt, more is held to be cached: what was generated for it."""
    async with fleet(decodes=1, decider="never") as run:
        first, headers = prompt(1, 3 * BLOCK - 1), {"x-hyperpd-session": "a"}
        await run.stack.ask(headers, prompt=first, max_tokens=4)
        for session, cached in (("b", 2), ("a", 3)):
            goes_on = first + prompt(cached, BLOCK)
            answer = await run.stack.ask({"x-hyperpd-session": session}, prompt=goes_on)
            assert (await run.explained(answer))["decode"]["cached_tokens"] == cached * BLOCK


@pytest.mark.parametrize(
    ("gateway", "asked", "headers", "reason", "mode"),
    [
        ({}, {}, {}, "remote", "pd"),
        ({"decider": "never"}, {}, {}, "rule", "local"),
        ({"decider": "uncached_tokens", "threshold_tokens": 99}, {}, {}, "below_threshold", "local"),
        ({"decider": "predicted_cost"}, {}, {}, "cost_local", "local"),
        ({}, {"max_tokens": 1}, {}, "shape_guard", "decode_only"),
        ({"decider": "never"}, {}, {"x-hyperpd-mode": "pd"}, "forced", "pd"),
        ({}, {}, {"x-hyperpd-mode": "aggregated"}, "forced", "decode_only"),
    ],
)
async def test_the_reason_is_counted_logged_and_said_to_who_asks(
    gateway: Any, asked: Any, headers: Any, reason: str, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "hyperpd.gateway")
    async with fleet(decodes=1, **gateway) as run:
        before = counted("hyperpd_routing_total", reason=reason)
        answer = await run.stack.ask({**EXPLAIN, **headers}, **asked)
        assert answer.headers["x-hyperpd-decision"].endswith(f"; routing={reason}; served={mode}")
        assert counted("hyperpd_routing_total", reason=reason) == before + 1
        assert f" reason={reason} mode={mode} " in caplog.text
        document = run.stack.pool.routing.explained.explain(answer.headers["x-hyperpd-request-id"])
        assert (document["mode"], document["decisions"][-1]["reason"]) == (mode, reason)


@pytest.mark.parametrize("gone", ["unproven", "ill", "left"])
async def test_where_there_is_no_way_decode_computes_it_and_that_is_seen(gone: str) -> None:
    async with fleet(decodes=1) as run:
        prefill = run.member("prefill-0")
        if gone == "unproven":
            run.stack.pool.pairs[0].doubt("a test")
        elif gone == "ill":
            prefill.healthy = False
        else:
            run.stack.pool.update([run.member("decode-0").endpoint])
        answer = await run.stack.ask(EXPLAIN)
        reason = "pair_open" if gone == "unproven" else "no_prefill_worker"
        assert answer.headers["x-hyperpd-decision"].endswith(f"; routing={reason}; served=recomputed")


async def test_a_prefill_that_failed_is_tried_at_another_worker() -> None:
    """Also where the first one has the prompt cached."""
    async with fleet(decodes=1, prefills=2) as run:
        failing = (await run.explained(await run.stack.ask(prompt=prompt(1, 5 * BLOCK))))["prefill"]["worker"]
        (other,) = {"prefill-0", "prefill-1"} - {failing}
        run.engines[failing].fault = "500"
        answer = await run.stack.ask(EXPLAIN, prompt=prompt(1, 5 * BLOCK))
        assert answer.headers["x-hyperpd-decision"].endswith("; routing=remote; served=pd")
        assert (len(run.engines[failing].bodies), len(run.engines[other].bodies)) == (2, 1)


async def test_the_answers_to_one_prompt_are_at_one_worker() -> None:
    async with fleet(decodes=3, decider="never") as run:
        prompts = [prompt(seed, 2 * BLOCK) for seed in range(3)]
        assert (await run.stack.ask(prompt=prompts, n=3)).status_code == 200
        for one in prompts:
            assert [len(set(run.served(one))), len(run.served(one))] == [1, 3]


async def test_the_answers_to_one_prompt_go_one_way() -> None:
    """The second one would find the prompt at decode, where nothing of it is yet."""
    gateway = {"decider": "uncached_tokens", "threshold_tokens": 200}
    async with fleet(decodes=2, **gateway) as run:
        for tokens, prefills in ((2 * BLOCK, 3), (BLOCK, 0)):
            run.stack.prefill.bodies.clear()
            assert (await run.stack.ask(prompt=prompt(1, tokens), n=3)).status_code == 200
            assert len(run.stack.prefill.bodies) == prefills


async def test_what_is_booked_is_returned_whatever_becomes_of_requests() -> None:
    draw = random.Random(7)
    async with fleet(decodes=2, prefills=2, limits={"total_s": 2, "first_token_s": 1}) as run:
        faults = ("", "", "500", "no_ticket", "error_event", "cut", "slow", "hang", "429", "late_error")
        forms: list[dict[str, Any]] = [
            {},
            {"stream": True},
            {"n": 3},
            {"n": 2, "stream": True},
            {"prompt": ["one", "two"]},
            {"max_tokens": 1},
            {"temperature": 9},
            {"prompt": prompt(1, 300), "stream": True},
        ]

        async def ask(number: int) -> None:
            headers = {"x-hyperpd-mode": "aggregated"} if number % 5 == 0 else {}
            with contextlib.suppress(httpx.HTTPError, TimeoutError):
                async with asyncio.timeout(draw.choice([0.05, 0.3, 5])):
                    await run.stack.ask(headers, **draw.choice(forms))

        for wave in range(6):
            for engine in run.engines.values():
                engine.fault = draw.choice(faults)
            if wave == 4:
                await run.engines["decode-1"].stop()
            await asyncio.gather(*(ask(number) for number in range(12)))
            for member in run.stack.pool.members:
                member.healthy = True
            for pair in run.stack.pool.pairs:
                pair.proven = True
        for engine in run.engines.values():
            engine.proceed.set()
        await until(lambda: not run.stack.pool.in_flight)
        await run.stack.settled()
        books = {
            (each.waiting, each.running, each.kv_tokens, each.prefill_tokens, each.prefill_s) for each in run.workers()
        }
        assert books == {(0, 0, 0, 0, 0.0)}
        assert {member.room.taken for member in run.stack.pool.members} == {0}


async def test_a_whole_answer_does_not_hold_up_others_until_its_end() -> None:
    """Its first token is not seen; it is taken to come when it was predicted."""
    async with fleet(decodes=1, decider="never") as run:
        (decode,) = run.stack.pool.routing.router.decode.fleet.named.values()
        run.stack.decode.fault = "hang"
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(run.stack.ask())
            await until(lambda: run.stack.decode.running)
            await until(lambda: (decode.waiting, decode.running, decode.prefill_tokens) == (0, 1, 0))
            run.stack.decode.proceed.set()


async def test_streams_teach_what_a_step_takes_and_how_long_answers_are() -> None:
    async with fleet(decodes=1, decider="never") as run:
        known = run.stack.pool.routing.router.knowledge
        (decode,) = run.stack.pool.routing.router.decode.fleet.named.values()
        step_s, tokens = decode.step.value, known.output_tokens.value
        for options in ({}, {"stream_options": {"include_usage": True}}):
            await run.stack.ask(stream=True, **options)
            assert decode.step.value != step_s
            assert known.output_tokens.value < tokens
            step_s, tokens = decode.step.value, known.output_tokens.value


async def test_an_error_in_place_of_the_first_event_is_no_first_token() -> None:
    """And what decode computes after it is booked as its own."""
    async with fleet(decodes=1) as run:
        (decode,) = run.stack.pool.routing.router.decode.fleet.named.values()
        engine = run.stack.decode
        engine.fault, engine.waits_for = "error_event", "hello"
        asking = asyncio.create_task(run.stack.ask(stream=True))
        await until(lambda: engine.waiting)
        engine.proceed.set()  # to the first, which fails
        engine.proceed.clear()
        await until(lambda: engine.waiting and any("kv_transfer_params" not in body for body in engine.bodies))
        assert (decode.waiting, decode.running, decode.prefill_tokens > 0) == (1, 0, True)
        engine.proceed.set()
        assert (await asking).status_code == 200


@pytest.mark.parametrize("lost", ["unproven", "ill", "left", "decode left"])
@pytest.mark.parametrize("prefills", [1, 2])
async def test_a_way_that_is_lost_while_a_place_is_waited_for_is_not_used(lost: str, prefills: int) -> None:
    """Another is, where one leads there; else decode computes the prompt, and prefill is not asked at all."""
    async with fleet(decodes=1, prefills=prefills) as run:
        pool, room = run.stack.pool, run.member("decode-0").room
        await room.take(room.places)
        asking = asyncio.create_task(run.stack.ask(EXPLAIN))
        await until(lambda: room.waiting)
        (chosen,) = (name for name, worker in pool.routing.router.prefill.fleet.named.items() if worker.waiting)
        if lost == "unproven":
            next(pair for pair in pool.pairs if pair.prefill.name == chosen).doubt("a test")
        elif lost == "ill":
            run.member(chosen).healthy = False
        else:
            gone = chosen if lost == "left" else "decode-0"
            pool.update(member.endpoint for member in pool.members if member.name != gone)
        room.leave()
        answer = await asking
        assert answer.json()["choices"][0]["text"] == "after hello"
        served = answer.headers["x-hyperpd-decision"].partition("; ")[2]
        asked = {name for name, engine in run.engines.items() if name.startswith("prefill") and engine.bodies}
        if prefills == 2 and lost != "decode left":
            assert (served, asked) == ("reason=plain; routing=remote; served=pd", {"prefill-0", "prefill-1"} - {chosen})
        else:
            assert (served, asked) == ("reason=plain; routing=pair_open; served=recomputed", set())


@pytest.mark.parametrize("gone", ["prefill-0", "decode-0"])
async def test_kv_of_a_worker_that_left_is_not_waited_for(gone: str) -> None:
    async with fleet(decodes=1) as run:
        routing, engine = run.stack.pool.routing, run.stack.prefill
        engine.fault = "hang"
        asking = asyncio.create_task(run.stack.ask())
        await until(lambda: engine.waiting)
        run.stack.pool.update(member.endpoint for member in run.stack.pool.members if member.name != gone)
        engine.proceed.set()
        assert (await asking).status_code == 200
        assert routing._moved == {}


async def test_waiting_for_a_place_at_decode_is_not_taken_for_slowness(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither prefill's, nor decode's that computes another part of the same request itself."""
    clock = SimpleNamespace(monotonic=lambda: 1_000.0)
    monkeypatch.setattr("hyperpd_runtime.gateway.routing.time", clock)
    async with fleet(decodes=2, decider="uncached_tokens", threshold_tokens=200) as run:
        router = run.stack.pool.routing.router
        rooms = [member.room for member in run.stack.pool.members if member.role == "decode"]
        for room in rooms:
            await room.take(room.places)
        asking = asyncio.create_task(run.stack.ask(prompt=[prompt(1, 300), prompt(2, 100)], stream=True))
        await until(lambda: any(room.waiting for room in rooms))
        assert sorted(worker.waiting for worker in run.workers()) == [1, 1, 1]
        clock.monotonic = lambda: 9_000.0
        for room in rooms:
            for _ in range(room.places):
                room.leave()
        assert (await asking).status_code == 200
        assert len(run.stack.prefill.bodies) == 1
        workers = [*router.prefill.fleet.named.values(), *router.decode.fleet.named.values()]
        assert [worker.pace.value >= 1 for worker in workers] == [True] * 3


async def test_what_is_passed_on_teaches_nothing_of_prompts() -> None:
    async with fleet(decider="never") as run:
        known = run.stack.pool.routing.router.knowledge
        before = known.prefill_s.value, known.output_tokens.value
        for _ in range(2):
            assert (await run.stack.http.post("/tokenize", json={"prompt": "hi"})).status_code == 200
        assert (known.prefill_s.value, known.output_tokens.value) == before
        for worker in ("decode-0", "decode-1"):
            run.member(worker).healthy = False
        assert (await run.stack.http.post("/tokenize", json={"prompt": "hi"})).status_code == 503


async def test_what_engines_say_is_taken_in() -> None:
    async with fleet() as run:
        await run.stack.ask(prompt=prompt(1, 2 * BLOCK))
        (home,) = run.served(prompt(1, 2 * BLOCK))
        routing, member = run.stack.pool.routing, run.member(home)
        router, worker = routing.router, routing.router.decode.fleet.named[home]
        prefill = router.prefill.fleet.named["prefill-0"]
        before = router.pairs.bytes_per_s(prefill, worker, worker.freed_s)
        routing.scraped(member, Figures(5, 2, 0.5, 16, 0, 0, 16), 1e6, 1.0)
        assert (worker.foreign_running, worker.foreign_waiting) == (5, 2)
        assert (worker.cache_tokens, worker.held_tokens) == (2 * BLOCK, BLOCK)
        assert router.pairs.bytes_per_s(prefill, worker, worker.freed_s) < before
        routing.scraped(member, Figures(0, 0, 0.0, None, 0, 0), 0, 0)
        assert (worker.foreign_running, worker.cache_tokens) == (0, 2 * BLOCK)


@pytest.mark.parametrize("over", [Routing.unread, Routing.came_back])
async def test_what_an_engine_said_is_over_when_it_says_no_more(over: Callable[[Routing, Member], None]) -> None:
    async with fleet() as run:
        routing, member = run.stack.pool.routing, run.member("decode-0")
        worker = routing.router.decode.fleet.named["decode-0"]
        routing.scraped(member, Figures(5, 2, 0.5, 16, 0, 0, 16), 0, 0)
        assert worker.in_flight == 7
        assert worker.held_tokens == BLOCK
        over(routing, member)
        assert (worker.in_flight, worker.held_tokens) == (0, 0)
        assert worker.backlog_s(time.monotonic()) == 0


def test_aggregated_workers_need_no_pair() -> None:
    workers = [Endpoint("aggregated", f"aggregated-{n}", f"http://127.0.0.1:{n}") for n in range(2)]
    members = Pool(workers, disaggregated=False, routing=Routing(load("tiny-cpu-aggregated-2x").recipe))
    for member in members.members:
        member.healthy = True
    assert {routed(members) for _ in range(2)} == {("aggregated-0", None), ("aggregated-1", None)}
    members.members[0].why, members.members[0].healthy = "draining", False
    assert {routed(members) for _ in range(2)} == {("aggregated-1", None)}
    router = members.routing.router
    assert router.decode.fleet.why_out(router.decode.fleet.named["aggregated-0"]) == ["draining"]


@pytest.mark.parametrize(("disaggregated", "reason", "times"), [(True, "remote", 3), (False, "no_prefill_worker", 1)])
async def test_each_decision_counts_also_where_nothing_splits(disaggregated: bool, reason: str, times: int) -> None:
    async with running(tiny()) as stack:
        if not disaggregated:
            stack.pool.disaggregated = False
            stack.pool.update([Endpoint("aggregated", "aggregated-0", stack.decode.url)])
            stack.pool.members[0].healthy = True
        before = counted("hyperpd_routing_total", reason=reason)
        assert (await stack.ask(n=3, temperature=1)).status_code == 200
        assert counted("hyperpd_routing_total", reason=reason) == before + times


async def test_two_workers_of_one_name_are_two() -> None:
    async with fleet(decodes=1, decider="never") as run:
        again = Endpoint("decode", "decode-0", "http://127.0.0.1:9")
        run.stack.pool.update([*(member.endpoint for member in run.stack.pool.members), again])
        named = run.stack.pool.routing.router.decode.fleet.named
        assert set(named) == {"decode-0", "decode-0 http://127.0.0.1:9"}
        run.stack.pool.update(member.endpoint for member in run.stack.pool.members[:2])
        assert set(named) == {"decode-0"}


def test_what_nobody_measured_is_said_and_what_somebody_did_is_taken() -> None:
    for name in shipped():
        recipe = load(name).recipe
        start, rough = calibration.start(recipe)
        assert {"prefill_tokens_per_s", "step_s"} <= set(rough)
        assert ("pair_bytes_per_s" in rough) == (recipe.aggregated is None)
    said = {"prefill_tokens_per_s": 7.0, "step_s": 0.5, "pair_bytes_per_s": 9.0, "handoff_s": 0.1}
    start, rough = calibration.start(tiny(gateway={"calibration": said}).recipe)
    assert rough == []
    assert (start.prefill_tokens_per_s, start.step_s, start.pair_bytes_per_s, start.handoff_s) == (7.0, 0.5, 9.0, 0.1)
    start, _ = calibration.start(load("llama-3.3-70b-p5en-4p2d").recipe)
    assert start.kv_bytes_per_token == 327_680  # 80 layers, 8 heads of 128, keys and values, two bytes
    assert start.pair_bytes_per_s == 2 * 50e9  # TP2 of the prefill worker: 400 Gbit/s for each GPU


@pytest.mark.parametrize(
    "model",
    [Model(80, 8, 128, "bfloat16"), Model(4, 2, 64, "float32"), Model(61, 1, 576, "bfloat16", latent=True)],
)
async def test_a_worker_says_how_large_its_kv_is(model: Model) -> None:
    async with running(tiny(model={"dtype": model.dtype})) as stack:
        told = tiny(model={"dtype": model.dtype}).recipe.fingerprint("decode", kv_shape=model.kv_shape)
        assert calibration.kv_bytes_per_token(told) == model.kv_bytes_per_token
        stack.pool.identify(stack.pool.members[1], told)
        known = stack.pool.routing.router.knowledge.calibration
        assert known.kv_bytes_per_token == model.kv_bytes_per_token
    nothing = tiny().recipe.fingerprint("decode")
    assert calibration.kv_bytes_per_token(nothing) is None

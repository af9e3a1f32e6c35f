"""What a router holds of real engines' prefix caches: known from KV events, guessed from what was sent, and the truth.

Run with -s to see how often, and by how much, the two views agree with the engines.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from hyperpd.routing.blocks import chain
from hyperpd.routing.router import Role
from hyperpd_runtime.gateway.apis import CHAT, COMPLETIONS, Api
from hyperpd_runtime.gateway.discovery import Endpoint
from hyperpd_runtime.gateway.guard import PLAIN, Admitted
from hyperpd_runtime.gateway.kv_events import KVEvents
from hyperpd_runtime.gateway.pool import Pool
from hyperpd_runtime.gateway.prompts import Exact, salt
from hyperpd_runtime.gateway.relay import Answer
from hyperpd_runtime.gateway.routing import Routing
from tests.container.stack import tiny, until
from tests.real.fleet import Fleet
from tests.real.recipes import ADAPTER, full

pytestmark = pytest.mark.real
BLOCK = 128
CACHE_BLOCKS = 40  # of each engine; the conversations below need twice as many
ROLES: tuple[Role, ...] = ("prefill", "decode")
CONVERSATIONS, TURNS, ANSWER = 10, 5, 40


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """1P1D that tells its KV events, with small caches."""
    folder = tmp_path_factory.mktemp("views")
    recipe = full("tiny-cpu-1p1d", folder / "recipe")
    document = yaml.safe_load(Path(recipe).read_text())
    document["gateway"] = {"decider": "always", "prefix_view": "exact"}
    for role in ROLES:
        document[role]["engine"] |= {"kv-cache-memory-bytes": CACHE_BLOCKS * BLOCK * 4096}
    Path(recipe).write_text(yaml.safe_dump(document))
    started = Fleet(recipe, folder / "state", port_offset=9000)
    try:
        yield started.wait()
    finally:
        assert started.stop() == 0


class Watched:
    """The fleet's workers as a router sees them, by both views."""

    def __init__(self, fleet: Fleet, session: aiohttp.ClientSession) -> None:
        ends = [Endpoint(role, f"{role}-0", fleet.worker(f"{role}-0")) for role in ROLES]
        self.pools = {}
        for name in ("exact", "approximate"):
            routing = Routing(tiny(gateway={"prefix_view": name}).recipe)
            self.pools[name] = Pool(ends, disaggregated=True, routing=routing)
            for role in ROLES:
                routing.router.resize(role, f"{role}-0", CACHE_BLOCKS - 1)  # one is vLLM's own
        for member in self.pools["exact"].members:
            member.healthy = True
        self.session = session
        self.fleet = fleet

    def view(self, name: str, role: str) -> Any:
        router = self.pools[name].routing.router
        return (router.prefill if role == "prefill" else router.decode).view

    def held(self, name: str, role: str, blocks: Sequence[int]) -> int:
        """How many of a prompt's first blocks a worker holds, by a view."""
        found = self.view(name, role).match(blocks, 0.0)
        return found[0][0] if found else 0

    async def seen(self, role: str, blocks: Sequence[int]) -> None:
        """Return when the engine has told of all of a prompt that it has computed."""
        await until(lambda: self.held("exact", role, blocks) == len(blocks))

    @contextlib.asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        watching = asyncio.create_task(KVEvents(self.pools["exact"], self.session).watch())
        try:
            yield
        finally:
            assert not watching.done(), watching.exception()
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def ask(self, at: str, path: str, body: dict[str, Any]) -> Any:
        """at: the gateway's URL, or a role's worker."""
        url = self.fleet.worker(f"{at}-0") if at in ROLES else at
        async with self.session.post(f"{url}{path}", json={"model": "tiny-llama", "temperature": 0} | body) as answer:
            told = await answer.json()
            assert answer.status == 200, told
            return told

    async def hits(self, role: str) -> float:
        """Tokens that a worker's engine has found in its own prefix cache so far."""
        name = "vllm:prefix_cache_hits_total"
        return await asyncio.to_thread(self.fleet.metric, self.fleet.worker(f"{role}-0"), name)


@pytest.fixture
async def watched(fleet: Fleet) -> AsyncIterator[Watched]:
    async with aiohttp.ClientSession() as session:
        yield Watched(fleet, session)


def ids(draw: random.Random, tokens: int) -> list[int]:
    return [draw.randrange(97, 123) for _ in range(tokens)]


@pytest.mark.parametrize("gateways", [1, 2])
async def test_how_well_the_views_agree_with_the_engines(watched: Watched, gateways: int) -> None:
    """Conversations take turns over 1P+1D: what each view says before a turn, and what the engine then finds.

    Of two gateways each serves every second turn, and remembers what it has sent itself.
    """
    draw = random.Random(gateways)
    shared = ids(draw, 300)
    said: list[list[int]] = [[*shared, *ids(draw, draw.randrange(50, 400))] for _ in range(CONVERSATIONS)]
    order = [n for n in range(CONVERSATIONS) for _ in range(TURNS)]
    draw.shuffle(order)
    errors: dict[str, list[float]] = defaultdict(list)
    evicted = 0
    async with watched.following():
        for turn, n in enumerate(order):
            prompt = said[n]
            blocks, most = chain(prompt, BLOCK), (len(prompt) - 1) // BLOCK
            ours = turn % gateways == 0
            expected, before = {}, {}
            for role in ROLES:
                before[role] = await watched.hits(role)
                for name in watched.pools:
                    expected[name, role] = min(watched.held(name, role, blocks), most) * BLOCK
            asked = {"prompt": prompt, "max_tokens": ANSWER, "ignore_eos": True, "return_token_ids": True}
            told = await watched.ask(watched.fleet.url, "/v1/completions", asked)
            for role in ROLES:
                await watched.seen(role, blocks)
                truth = await watched.hits(role) - before[role]
                evicted += turn > order.index(n) and truth <= len(shared)
                for name in watched.pools if ours else ():
                    errors[f"{name} {role}"].append(expected[name, role] - truth)
                if ours:
                    watched.view("approximate", role).sent(0, blocks, float(turn))
            prompt += told["choices"][0]["token_ids"] + ids(draw, draw.randrange(30, 200))
    assert evicted  # else the caches were too large to say anything
    print(
        f"\n{gateways} gateway(s); {len(order)} turns of {CONVERSATIONS} conversations, caches of {CACHE_BLOCKS} blocks"
        f" of {BLOCK} tokens; {evicted} of {2 * len(order)} times a conversation had been evicted"
    )
    print("view        role     equal within a block   mean error (tokens)   mean |error|")
    within = {}
    for which, off in sorted(errors.items()):
        within[which] = sum(abs(error) <= BLOCK for error in off) / len(off)
        mean, size = sum(off) / len(off), sum(map(abs, off)) / len(off)
        name, role = which.split()
        print(f"{name:11} {role:8} {within[which]:>20.0%} {mean:>21.1f} {size:>14.1f}")
    assert [which for which, off in errors.items() if which.startswith("exact") and any(off)] == []


async def test_what_was_missed_is_replayed_by_a_real_engine(watched: Watched) -> None:
    """A subscriber that pauses misses what is published, removals too."""
    draw = random.Random(8)
    first, other = ids(draw, 4 * BLOCK), [ids(draw, 12 * BLOCK) for _ in range(6)]
    async with watched.following():
        await watched.ask("decode", "/v1/completions", {"prompt": first, "max_tokens": 1})
        await watched.seen("decode", chain(first, BLOCK))
    for prompt in other:  # more than the cache holds
        await watched.ask("decode", "/v1/completions", {"prompt": prompt, "max_tokens": 1})
    assert watched.held("exact", "decode", chain(first, BLOCK)) == 4
    async with watched.following():
        await watched.seen("decode", chain(other[-1], BLOCK))
        await until(lambda: watched.held("exact", "decode", chain(first, BLOCK)) == 0)
        kept = watched.view("exact", "decode")
        fresh = Watched(watched.fleet, watched.session)
        async with fresh.following():
            await until(lambda: fresh.view("exact", "decode").reached(0) == kept.reached(0))
            assert fresh.view("exact", "decode")._caches[0].ours == kept._caches[0].ours


async def test_tenants_and_adapters_are_told_apart(watched: Watched) -> None:
    prompt = ids(random.Random(9), 3 * BLOCK + 5)
    async with watched.following():
        for model, cache_salt in (("tiny-llama", "t"), (ADAPTER, ""), (ADAPTER, "t"), ("tiny-llama", "")):
            blocks = chain(prompt, BLOCK, salt(ADAPTER if model == ADAPTER else "", cache_salt))
            assert watched.held("exact", "decode", blocks) == 0
            body = {"model": model, "prompt": prompt, "max_tokens": 1}
            await watched.ask("decode", "/v1/completions", body | ({"cache_salt": cache_salt} if cache_salt else {}))
            await watched.seen("decode", blocks)


@pytest.mark.parametrize(
    ("api", "body"),
    [
        (COMPLETIONS, {"prompt": "Once upon a time. " * 40}),
        (
            CHAT,
            {
                "messages": [
                    {"role": "system", "content": "Be terse. " * 30},
                    {"role": "user", "content": "Hello " * 60},
                ]
            },
        ),
    ],
)
async def test_a_prompt_as_rendered_is_the_prompt_as_told(watched: Watched, api: Api, body: dict[str, Any]) -> None:
    async def render(path: str, body: dict[str, Any]) -> Answer:
        async with watched.session.post(watched.fleet.worker("decode-0") + path, json=body) as answer:
            return Answer(answer.status, answer.content_type, await answer.read())

    body = {"model": "tiny-llama", "max_tokens": 1, **body}
    request = await Exact(BLOCK, render).request(Admitted(body, api, PLAIN))
    assert len(request.blocks) > 3
    async with watched.following():
        await watched.ask("decode", api.path, body)
        await watched.seen("decode", request.blocks)


async def test_the_gateway_follows_its_workers_itself(watched: Watched) -> None:
    fleet = watched.fleet
    chat = {"messages": [{"role": "user", "content": "What is new? " * 50}], "max_tokens": 4}
    await watched.ask(fleet.url, "/v1/chat/completions", chat)
    await watched.ask(fleet.url, "/v1/completions", {"prompt": "Nothing. " * 50, "max_tokens": 4})
    admin = fleet.state()["admin_url"]

    def agree() -> bool:
        by_the_gateway = {
            role: fleet.metric(admin, "hyperpd_kv_events_blocks", {"worker": f"{role}-0"}) for role in ROLES
        }
        return by_the_gateway == {role: watched.view("exact", role).blocks_held(0) for role in ROLES}

    async with watched.following():
        await until(lambda: min(watched.view("exact", role).blocks_held(0) for role in ROLES) > 6 and agree())
    for role in ROLES:
        lag_s = fleet.metric(admin, "hyperpd_kv_events_lag_seconds", {"worker": f"{role}-0"})
        print(f"\n{role}-0's last batch was taken in {lag_s * 1000:.0f} ms after its stamp", end="")
    assert fleet.metric(admin, "hyperpd_kv_events_lost_total") == 0
    assert fleet.metric(admin, "hyperpd_unknown_prompts_total") == 0

"""KV events followed over real sockets: what is missed, lost, replayed or no event at all; and how batches are read."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import aiohttp
import msgspec
import pytest

from hyperpd.routing.blocks import chain
from hyperpd.routing.events import AllBlocksCleared, BlockRemoved, BlockStored, EventView
from hyperpd_runtime.gateway import kv_events
from hyperpd_runtime.gateway.discovery import Endpoint
from hyperpd_runtime.gateway.kv_batches import Reader
from hyperpd_runtime.gateway.kv_events import KVEvents
from hyperpd_runtime.gateway.pool import Pool
from hyperpd_runtime.gateway.prompts import salt
from hyperpd_runtime.gateway.routing import Routing
from tests.container.stack import counted, tiny, until
from tests.fakes.kv_events import Publisher, cleared, removed, stored, theirs

BLOCK = 16
ONE, TWO, THREE = (list(range(BLOCK * blocks)) for blocks in (1, 2, 3))


def block(token: int) -> list[int]:
    """Another prompt, of one block."""
    return [token] * BLOCK


@dataclass
class Followed:
    """One decode worker, its publisher, and the router that hears of it."""

    publisher: Publisher
    pool: Pool
    routing: Routing

    def held(self, tokens: Sequence[int], seed: int = 0) -> int:
        """Blocks of a prompt that the router holds to be there."""
        found = self.routing.router.decode.view.match(chain(tokens, BLOCK, seed), 0.0)
        return found[0][0] if found else 0

    @property
    def blocks(self) -> float:
        return counted("hyperpd_kv_events_blocks", worker="decode-0")


@contextlib.asynccontextmanager
async def following(publisher: Publisher) -> AsyncIterator[Followed]:
    routing = Routing(tiny(gateway={"prefix_view": "exact"}, kv_transfer={"block_size_tokens": BLOCK}).recipe)
    async with publisher.serving() as url, aiohttp.ClientSession() as session:
        pool = Pool([Endpoint("decode", "decode-0", url)], disaggregated=False, routing=routing)
        pool.members[0].healthy = True
        watching = asyncio.create_task(KVEvents(pool, session).watch())
        try:
            yield Followed(publisher, pool, routing)
        finally:
            assert not watching.done(), watching.exception()
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


@pytest.fixture(autouse=True)
def no_counts() -> None:
    for metric in (kv_events.BATCHES, kv_events.LOST):
        metric.clear()


def lost(why: str) -> float:
    return counted("hyperpd_kv_events_lost_total", why=why)


def batches(outcome: str) -> float:
    return counted("hyperpd_kv_event_batches_total", outcome=outcome)


async def test_what_an_engine_holds_is_known_as_it_says_so() -> None:
    async with following(Publisher()) as it:
        await it.publisher.heard()
        await it.publisher.publish(stored(TWO))
        await until(lambda: it.held(THREE) == 2)
        await it.publisher.publish(stored(THREE[2 * BLOCK :], TWO))
        await until(lambda: it.held(THREE) == 3)
        await it.publisher.publish(removed(THREE))
        await until(lambda: it.held(THREE) == 2)
        assert it.blocks == 2
        await it.publisher.publish(cleared())
        await until(lambda: it.held(THREE) == 0)
        assert it.publisher.replays_asked == [0]


async def test_what_was_told_before_the_gateway_listened_is_asked_for() -> None:
    publisher = Publisher()
    await publisher.publish(stored(TWO))
    await publisher.publish(removed(TWO))
    async with following(publisher) as it:
        await until(lambda: it.held(TWO) == 1)


@pytest.mark.parametrize("at_once", [100, 2])
async def test_missed_batches_are_replayed(at_once: int) -> None:
    """However many of them come through at once."""
    async with following(Publisher(at_once=at_once)) as it:
        await it.publisher.heard()
        await it.publisher.publish(stored(THREE))
        await until(lambda: it.held(THREE) == 3)
        await it.publisher.publish(removed(THREE), lose=True)
        await it.publisher.publish(stored(block(50)), lose=True)
        await it.publisher.publish(removed(TWO), lose=True)
        await it.publisher.publish(stored(block(60)))
        await until(lambda: it.held(block(60)))
        assert (it.held(THREE), it.held(block(50)), it.blocks) == (1, 1, 3)
        assert not kv_events.LOST.collect()[0].samples


async def test_a_gap_of_a_silent_engine_is_found_by_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_events, "_SILENT_S", 0.05)
    async with following(Publisher()) as it:
        await it.publisher.heard()
        await it.publisher.publish(stored(TWO))
        await until(lambda: it.held(TWO) == 2)
        await it.publisher.publish(removed(TWO), lose=True)
        await until(lambda: it.held(TWO) == 1)
        asked = len(it.publisher.replays_asked)
        await until(lambda: len(it.publisher.replays_asked) > asked + 1)
        assert it.publisher.replays_asked[-1] == 1  # the last one known: it comes back, so the engine is the same
        assert not kv_events.LOST.collect()[0].samples


@pytest.mark.parametrize(("buffer", "replays"), [(2, True), (100, False)])
async def test_what_cannot_be_replayed_is_forgotten(buffer: int, replays: bool) -> None:
    async with following(Publisher(buffer=buffer, replays=replays)) as it:
        await it.publisher.heard()
        await it.publisher.publish(stored(THREE))
        await until(lambda: it.held(THREE) == 3)
        for _ in range(3):
            await it.publisher.publish(removed(THREE), lose=True)
        await it.publisher.publish(stored(block(60)), lose=True)
        await it.publisher.publish(stored(block(50)))
        await until(lambda: it.held(block(50)))
        assert (it.held(THREE), lost("not_replayed")) == (0, 1)
        assert it.held(block(60)) == replays  # from what can be replayed on, all is known


async def test_an_engine_that_began_anew_is_seen_at_its_first_batch() -> None:
    async with following(Publisher()) as it:
        await it.publisher.heard()
        for prompt in (ONE, block(5), block(6)):
            await it.publisher.publish(stored(prompt))
        await until(lambda: it.blocks == 3)
        it.publisher.restart()
        await it.publisher.publish(stored(block(7)), lose=True)
        await it.publisher.publish(stored(block(8)))
        await until(lambda: it.held(block(8)))
        assert (it.held(ONE), it.held(block(7)), it.blocks) == (0, 1, 2)


async def test_an_engine_that_began_anew_and_is_silent_is_found_by_asking(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kv_events, "_SILENT_S", 0.05)
    async with following(Publisher()) as it:
        await it.publisher.heard()
        for _ in range(3):
            await it.publisher.publish(stored(TWO))
        await until(lambda: it.held(TWO) == 2)
        it.publisher.restart()
        await until(lambda: it.held(TWO) == 0)
        assert lost("restarted") == 1
        assert "event=kv_events_lost worker=decode-0 why=restarted" in caplog.text
        await it.publisher.publish(stored(ONE))
        await until(lambda: it.held(TWO) == 1)


async def test_one_that_was_away_is_checked_when_it_is_back() -> None:
    async with following(Publisher()) as it:
        await it.publisher.heard()
        for _ in range(3):
            await it.publisher.publish(stored(THREE))
        await until(lambda: it.held(THREE) == 3)
        (member,) = it.pool.members
        member.healthy = False
        await it.publisher.heard(any_longer=False)
        it.publisher.restart()
        for _ in range(5):  # its numbers have gone past those of before
            await it.publisher.publish(stored(ONE))
        member.healthy = True
        await until(lambda: it.held(THREE) == 1)


async def test_of_the_same_engine_nothing_is_forgotten_when_it_is_back() -> None:
    async with following(Publisher()) as it, aiohttp.ClientSession() as session:
        await it.publisher.heard()
        await it.publisher.publish(stored(THREE))
        await until(lambda: it.held(THREE) == 3)
        for it.publisher.well in (False, True):
            await it.pool._probe(session, it.pool.members[0])
            await it.publisher.heard(any_longer=it.publisher.well)
        await until(lambda: it.publisher.replays_asked == [0, 0])
        await it.publisher.publish(stored(block(50)))
        await until(lambda: it.held(block(50)))
        assert it.held(THREE) == 3


GARBAGE = [b"", b"\xc1", msgspec.msgpack.encode([1.0, [{"type": "BlockStored", "block_hashes": 7}]])]


@pytest.mark.parametrize("payload", GARBAGE)
async def test_a_batch_that_cannot_be_read_may_have_removed_anything(
    payload: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kv_events, "_SILENT_S", 0.05)
    async with following(Publisher()) as it:
        await it.publisher.heard()
        await it.publisher.publish(stored(TWO))
        await until(lambda: it.held(TWO) == 2)
        await it.publisher.publish(payload=payload)
        await until(lambda: it.held(TWO) == 0)
        asked = len(it.publisher.replays_asked)
        await until(lambda: len(it.publisher.replays_asked) > asked + 1)  # it comes again, and is old by now
        assert lost("unreadable") == 1
        await it.publisher.publish(stored(block(50)))
        await until(lambda: it.held(block(50)))


@pytest.mark.parametrize("frames", [[b"x"], [b"", b"12345678"], [b"", b"1", b"x"], [b"", b"12345678", b"x", b"y"]])
async def test_messages_that_are_no_batch_change_nothing(frames: list[bytes]) -> None:
    async with following(Publisher()) as it:
        await it.publisher.heard()
        await it.publisher.publish(stored(TWO))
        await it.publisher.send(*frames)
        await it.publisher.publish(stored(THREE[2 * BLOCK :], TWO))
        await until(lambda: it.held(THREE) == 3 and batches("foreign") == 1)


@pytest.mark.parametrize(
    ("sources", "why"),
    [
        ({}, "publishes no KV events"),
        ({"0": {"endpoint": "tcp://*:1"}, "1": {"endpoint": "tcp://*:2"}}, "2 data-parallel ranks"),
        ({"0": {"endpoint": "inproc://events"}}, "publishes at no port"),
        ({"0": {"endpoint": "tcp://*:x"}}, "publishes at no port"),
        ([1], "not as vLLM's: Expected `object`, got `array`"),
        ("x", "got `str`"),
        ({"0": 1}, "got `int`"),
        ({"0": {"endpoint": None}}, "got `null` - at `$[...].endpoint`"),
        ({"0": {"endpoint": 7}}, "got `int` - at `$[...].endpoint`"),
    ],
)
async def test_why_a_worker_cannot_be_followed_is_said(
    sources: Any, why: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kv_events, "_ASK_AGAIN_S", 0.01)
    publisher = Publisher()
    publisher.sources = sources
    caplog.set_level("INFO", "hyperpd.gateway")
    async with following(publisher) as it:
        await until(lambda: why in caplog.text and publisher.sources_asked > 2)
        publisher.sources = {"0": publisher.source}
        await publisher.heard()
        await publisher.publish(stored(ONE))
        await until(lambda: it.held(ONE) == 1)
    assert caplog.text.count("followed=False") == 1


async def test_where_no_socket_can_be_opened_it_is_tried_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kv_events, "_ASK_AGAIN_S", 0.01)
    monkeypatch.setattr(kv_events, "_SOCKETS", 1)  # none for a replay
    publisher = Publisher()
    async with following(publisher):
        await until(lambda: "Too many open files" in caplog.text and publisher.sources_asked > 2)
    assert caplog.text.count("event=kv_events ") == 1


async def test_blocks_of_another_size_are_said(caplog: pytest.LogCaptureFixture) -> None:
    async with following(Publisher()) as it:
        await it.publisher.heard()
        await it.publisher.publish(stored(ONE, block_tokens=8))
        await until(lambda: "blocks have 8 tokens" in caplog.text)


async def test_of_a_worker_that_has_gone_nothing_is_left() -> None:
    async with following(Publisher()) as it:
        await it.publisher.heard()
        await it.publisher.publish(stored(TWO))
        await until(lambda: it.blocks == 2)
        it.pool.update([])
        await it.publisher.heard(any_longer=False)
        kept = [
            s for metric in (kv_events.AGE_S, kv_events.LAG_S, kv_events.BLOCKS) for s in metric.collect()[0].samples
        ]
        assert kept == []
        assert not cast(EventView, it.routing.router.decode.view)._holders


def read(*events: dict[str, Any], own_salt: str = "", reader: Reader | None = None) -> list[Any]:
    payload = msgspec.msgpack.encode([1.5, list(events), 0])
    at_s, found = (reader or Reader(BLOCK)).read(payload, own_salt)
    assert at_s == 1.5
    return found


def test_what_this_version_does_not_know_is_passed_over() -> None:
    later = {"type": "BlockMoved", "where": [1]}
    more = stored(ONE) | {"unheard_of": {"of": 1}}
    assert read(later, more, cleared()) == [BlockStored([theirs(ONE)], None, ONE, BLOCK), AllBlocksCleared()]


ADAPTER, SALT = {"lora_name": "law"}, "s" * 43


@pytest.mark.parametrize(
    ("keys", "other", "own_salt", "of"),
    [
        ([None, None], {}, "", ("", "")),
        ([[SALT], None], {}, "", ("", SALT)),
        ([["law"], ["law"]], ADAPTER, "", ("law", "")),
        ([["law", SALT], ["law"]], ADAPTER, "", ("law", SALT)),
        ([[f"{SALT}-own"], None], {}, "own", ("", SALT)),
        ([["own"], None], {}, "own", ("", "")),
        ([["law", "own"], ["law"]], ADAPTER, "own", ("law", "")),
        ([[SALT], None], {}, "own", None),  # of before the worker had a salt of its own: nobody finds it
        ([None, None], {}, "own", None),
        (None, {"extra_keys": None}, "", None),  # nobody says whose it is
    ],
)
def test_a_prompts_beginning_is_its_tenants_and_its_adapters(
    keys: Any, other: dict[str, Any], own_salt: str, of: tuple[str, str] | None
) -> None:
    found = read(stored(TWO, keys=keys, **other), own_salt=own_salt)
    assert [event.salt for event in found] == ([salt(*of)] if of else [])
    assert [event.hashes for event in found] == ([[theirs(ONE), theirs(TWO)]] if of else [])


@pytest.mark.parametrize("key", [["image", 2], b"digest of embeddings"])
def test_blocks_of_what_tokens_say_nothing_of_end_a_chain(key: Any) -> None:
    (event,) = read(stored(THREE, keys=[[SALT], [key], None]))
    assert (event.hashes, event.tokens, event.salt) == ([theirs(ONE)], ONE, salt("", SALT))
    assert read(stored(TWO, keys=[[key, SALT], None])) == []


def test_only_layers_that_attend_to_everything_are_followed() -> None:
    reader = Reader(BLOCK)
    window = {"group_idx": 0, "kv_cache_spec_kind": "sliding_window"}
    first, second = {"group_idx": 1}, {"group_idx": 2, "kv_cache_spec_kind": "mla_attention"}
    whole = BlockStored([theirs(ONE)], None, ONE, BLOCK)
    assert read(stored(TWO, **window), stored(ONE, **first), stored(ONE, **second), reader=reader) == [whole]
    gone = [removed(ONE, group_idx=group) for group in (0, 2, 1)]
    assert read(*gone, reader=reader) == [BlockRemoved([theirs(ONE)])]


def test_other_memory_and_other_blocks_are_not_the_caches() -> None:
    reader = Reader(BLOCK)
    assert read(stored(ONE, medium="CPU"), removed(ONE, medium="STORAGE"), reader=reader) == []
    assert reader.other_block_tokens == 0
    assert read(stored(ONE, block_tokens=8), reader=reader) == []
    assert reader.other_block_tokens == 8

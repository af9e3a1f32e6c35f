"""What workers' engines say of themselves: their /metrics, every few seconds; and what they moved in between.

vLLM's names, 0.32. Only the lines that are wanted are looked at: 0.07 ms for a page of 63 kB, of which
prometheus_client's parser would make 10 ms, on the loop that serves requests. With HTTP a page takes 0.6 ms of it: for
a thousand workers a tenth of a core, and no moment above 10 ms.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import ssl
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, WeakSet

import aiohttp
from prometheus_client import Counter

from hyperpd_runtime.gateway import upstream
from hyperpd_runtime.gateway.relay import NETWORK
from hyperpd_runtime.gateway.telemetry import described, registry

if TYPE_CHECKING:
    from hyperpd_runtime.gateway.member import Member
    from hyperpd_runtime.gateway.pool import Pool

log = logging.getLogger("hyperpd.gateway")
FAILURES = Counter(
    "hyperpd_scrape_failures",
    "Engines' metrics that could not be read; what was known of the worker stays",
    registry=registry,
)
_EVERY_S = 5.0
_LOOK_EVERY_S = 0.5  # for a first healthy worker
_TIMEOUT_S = 3.0
_MOST_BYTES = 8 << 20  # of a page; one rank says 63 kB

_RUNNING, _WAITING, _USAGE = b"num_requests_running", b"num_requests_waiting", b"kv_cache_usage_perc"
_CONFIG = b"cache_config_info"
_BYTES, _SECONDS = b"nixl_bytes_transferred_sum", b"nixl_xfer_time_seconds_sum"
_NAMES = b"|".join((_RUNNING, _WAITING, _USAGE, _CONFIG, _BYTES, _SECONDS))
_SAMPLE = re.compile(rb"\nvllm:(%s)(\{.*\})? (\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?!\S)" % _NAMES)
_BLOCKS, _BLOCK_TOKENS = (re.compile(rb'[{,]%s="(\d{1,15})"' % label) for label in (b"num_gpu_blocks", b"block_size"))


@dataclass(frozen=True, slots=True)
class Figures:
    """One worker's engine, all of its ranks together."""

    running: int
    waiting: int
    kv_usage: float  # 0 to 1, the ranks' mean: they are of one size, so it is that of the whole cache
    cache_blocks: int | None  # of all ranks; None: not said
    moved_bytes: float  # by NIXL since the engine's start, on the side that moves: decode pulls, or prefill pushes
    moving_s: float  # the same, every rank's time for itself
    block_tokens: int | None = None


def samples(page: bytes) -> list[tuple[bytes, bytes, bytes]]:
    """The wanted samples of a page, or of a part that begins and ends between lines: name, labels, value."""
    return _SAMPLE.findall(b"\n" + page)


def figures(found: list[tuple[bytes, bytes, bytes]]) -> Figures:
    """What the samples of one page come to. Raises ValueError where an engine does not say how busy it is."""
    said: dict[bytes, list[float]] = defaultdict(list)
    for name, _, value in found:
        said[name].append(float(value))
    if missing := [name.decode() for name in (_RUNNING, _WAITING, _USAGE) if not said[name]]:
        raise ValueError(f"/metrics does not say vllm:{', vllm:'.join(missing)}")
    if not all(math.isfinite(sum(values)) for values in said.values()):
        raise ValueError("/metrics says what is no number of requests, blocks, bytes or seconds")
    configs = [labels for name, labels, _ in found if name == _CONFIG]
    return Figures(
        running=int(sum(said[_RUNNING])),
        waiting=int(sum(said[_WAITING])),
        kv_usage=sum(said[_USAGE]) / len(said[_USAGE]),
        cache_blocks=_most(_BLOCKS, configs),
        moved_bytes=sum(said[_BYTES]),
        moving_s=sum(said[_SECONDS]),
        block_tokens=_most(_BLOCK_TOKENS, configs),
    )


def _most(label: re.Pattern[bytes], configs: list[bytes]) -> int | None:
    """vLLM repeats its whole cache, summed over ranks, for each rank."""
    return max((int(found[1]) for config in configs if (found := label.search(config))), default=None)


class Scrapes:
    """Reads the metrics of a pool's healthy workers."""

    def __init__(self, pool: Pool, told: Callable[[Member, Figures | None], None]) -> None:
        """told: is called with what a member's engine says, each time it was read, and once with None where it can no
        longer be read: what it said before is over."""
        self._pool = pool
        self._told = told
        self._unread: WeakSet[Member] = WeakSet()  # of whom that was said

    async def watch(self, tls: ssl.SSLContext | None = None) -> None:
        """Read every healthy member, for ever, spread over the time between two rounds; none holds up another.

        tls: whom to believe, where workers speak it.
        """
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        # A session of its own: on the requests' connections it would keep all of them young.
        async with upstream.session(tls, timeout=timeout) as session, asyncio.TaskGroup() as tasks:
            while True:
                healthy = [member for member in self._pool.members if member.healthy]
                for member in healthy:
                    tasks.create_task(self._scrape(session, member))
                    await asyncio.sleep(_EVERY_S / len(healthy))
                if not healthy:
                    await asyncio.sleep(_LOOK_EVERY_S)

    async def _scrape(self, session: aiohttp.ClientSession, member: Member) -> None:
        try:
            said = figures(await _read(session, member))
        except (*NETWORK, ValueError) as error:
            FAILURES.inc()
            if member not in self._unread:
                self._unread.add(member)
                why = str(error) if type(error) is ValueError else described(error)
                log.warning("event=metrics_unread worker=%s why=%r", member.name, why)
                self._tell(member, None)
            return
        if member in self._unread:
            self._unread.discard(member)
            log.info("event=metrics_read worker=%s", member.name)
        self._tell(member, said)

    def _tell(self, member: Member, said: Figures | None) -> None:
        if member in self._pool.members:  # it may have left meanwhile
            self._told(member, said)


async def _read(session: aiohttp.ClientSession, member: Member) -> list[tuple[bytes, bytes, bytes]]:
    """The samples of a worker's page, piece by piece: a page of many ranks holds up no request."""
    found, rest, size_bytes = [], b"", 0
    url = f"{member.url}/metrics"
    async with session.get(url, allow_redirects=False, server_hostname=member.certified) as answer:
        if answer.status != 200:
            raise ValueError(f"/metrics answers {answer.status}")
        async for piece in answer.content.iter_any():
            size_bytes += len(piece)
            if size_bytes > _MOST_BYTES:
                raise ValueError(f"/metrics says more than {_MOST_BYTES} bytes")
            lines, _, rest = (rest + piece).rpartition(b"\n")
            found += samples(lines)
    return found


class Transfers:
    """What each worker's NIXL moved from one page to the next."""

    def __init__(self, ranks: int) -> None:
        """ranks: of one worker that move a request's blocks at the same time (tensor x pipeline)."""
        self._ranks = ranks
        self._last: WeakKeyDictionary[Member, Figures] = WeakKeyDictionary()

    def since(self, member: Member, now: Figures) -> tuple[float, float]:
        """Bytes, and the seconds they took, since this was asked last for `member`; of a first page nothing.

        Of an engine that was restarted: since its start.
        """
        before = self._last.get(member, now)
        self._last[member] = now
        moved_bytes, moving_s = now.moved_bytes - before.moved_bytes, now.moving_s - before.moving_s
        if moved_bytes < 0 or moving_s < 0:
            moved_bytes, moving_s = now.moved_bytes, now.moving_s
        return moved_bytes, moving_s / self._ranks

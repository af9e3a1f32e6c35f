"""The gateway as a live object: two listening ports, the watch over the pool, and their end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable

from hyperpd.errors import NotReady
from hyperpd.placement import Placement
from hyperpd.recipe import Recipe, RecipeFile
from hyperpd_runtime import tls
from hyperpd_runtime.gateway import app, discovery, edge, keys, pool, telemetry
from hyperpd_runtime.gateway.discovery import Discovery, Resolve, Sources
from hyperpd_runtime.gateway.flow import Flow
from hyperpd_runtime.gateway.member import ENGINE_LEASE_S, Member
from hyperpd_runtime.gateway.room import ENGINE_SEQUENCES
from hyperpd_runtime.gateway.routing import Routing
from hyperpd_runtime.gateway.scrape import Figures, Scrapes, Transfers
from hyperpd_runtime.listen import Listener
from hyperpd_runtime.tls import Certificate

log = logging.getLogger("hyperpd.gateway")
WARM_UP_TIMEOUT_S = 120  # first contact of a pair took up to 28 s on a loaded machine
_SAY_EVERY_S = 30.0  # what is waited for


def _sequences(recipe: Recipe) -> int:
    """How many sequences one decode worker runs at once."""
    decode = recipe.decode
    return int(str(decode.engine.get("max-num-seqs", ENGINE_SEQUENCES))) * decode.parallel.data if decode else 1


def _ranks(recipe: Recipe) -> int:
    """How many of a decode worker's ranks move a request's KV at the same time."""
    return recipe.decode.parallel.tensor * recipe.decode.parallel.pipeline if recipe.decode else 1


class Gateway:
    """Serve until `stop`. Raises RecipeError when the recipe asks for keys and `keys_file` has none to use.

    api_address: where the API listens, if not at `address`. certificate: of both ports, which speak TLS then.
    workers_ca_file: who signed the workers' certificates, where they are reached by TLS.
    """

    def __init__(
        self,
        file: RecipeFile,
        sources: Sources,
        address: str,
        placement: Placement,
        drain: Callable[[], None],
        *,
        keys_file: str = "",
        certificate: Certificate | None = None,
        workers_ca_file: str = "",
        api_address: str = "",
        resolve: Resolve = discovery.resolve,
    ) -> None:
        self._keys = keys.of(file.recipe, keys_file)
        self._certificate = certificate
        telemetry.CERTIFICATE.set_function(lambda: bool(certificate and certificate.problem))
        telemetry.CERTIFICATE_EXPIRES.set_function(lambda: certificate.left_s if certificate else math.nan)
        self._workers_tls = tls.trusting(workers_ca_file) if workers_ca_file else None
        self.pool = pool.Pool(
            disaggregated="prefill" in sources.roles,
            routing=Routing(file.recipe),
            sequences=_sequences(file.recipe),
            lease_s=min(file.recipe.kv_transfer.lease_s, ENGINE_LEASE_S),
        )
        self._transfers = Transfers(_ranks(file.recipe))
        self._discovery = Discovery(sources, self.pool.update, resolve)
        self._file = file
        self._address, self._api_address = address, api_address or address
        self._begin_drain = drain
        self._ports = placement
        self._resources = contextlib.AsyncExitStack()
        self._listeners: list[Listener] = []
        self._watches: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Listen on both ports and begin to prove the pairs."""
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
        session = await self._resources.enter_async_context(pool.session(self._workers_tls))
        flow = Flow(session, self.pool, self._file.recipe)
        self._resources.push_async_callback(flow.close)
        scrapes = Scrapes(self.pool, self._scraped)
        watching = [self.pool.watch(flow.canary, self._workers_tls), self._discovery.watch()]
        watching.append(scrapes.watch(self._workers_tls))
        if self._file.recipe.gateway.prefix_view == "exact":
            from hyperpd_runtime.gateway.kv_events import KVEvents  # which loads ZMQ

            watching.append(KVEvents(self.pool, session).watch())
        watching += [followed.watch() for followed in (self._keys, self._certificate) if followed]
        self._watches = [asyncio.create_task(watch) for watch in watching]
        for watch in self._watches:
            watch.add_done_callback(self._watch_ended)
        limits = self._file.recipe.gateway.limits
        context = self._certificate.context if self._certificate else None
        bounds = edge.Bounds(limits.header_kib << 10, stalled_s=limits.stalled_s)
        api = app.api(flow, self.pool, self._file, self._keys)
        admin = app.admin(self.pool, self._file, self._begin_drain, self._keys, self._certificate)
        for address, port, asgi in (
            (self._api_address, self._ports.api_port, api),
            (self._address, self._ports.admin_port, admin),
        ):
            protocol = edge.protocol(bounds)
            self._listeners.append(Listener(asgi, address, port, self._file.recipe.drain_s, protocol, context))
            await self._listeners[-1].start()

    def _scraped(self, member: Member, said: Figures | None) -> None:
        if said is None:
            self.pool.routing.unread(member)
        else:
            self.pool.routing.scraped(member, said, *self._transfers.since(member, said))

    def _watch_ended(self, watch: asyncio.Task[None]) -> None:
        """A defect: blind, this gateway would go on with workers that are gone."""
        if not watch.cancelled() and (error := watch.exception()):
            log.critical("event=defect what='a watch of the gateway ended'", exc_info=error)
            self._begin_drain()

    async def until_ready(self, timeout_s: float | None = WARM_UP_TIMEOUT_S) -> None:
        """Return when a request would be served as the recipe says. Raises NotReady after `timeout_s`.

        None waits for ever, saying what for: workers of other machines may load for long, or be replaced.
        """
        began = said = time.monotonic()
        try:
            async with asyncio.timeout(timeout_s):
                while why := self.pool.not_ready():
                    if time.monotonic() - said >= _SAY_EVERY_S:
                        said = time.monotonic()
                        log.info("event=waiting elapsed_s=%.0f why=%r", said - began, why)
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise NotReady(f"not ready after {timeout_s} s: {self.pool.not_ready()}") from None

    async def drain(self) -> None:
        """Answer 503 to /ping, and wait until nothing runs, at most as long as the recipe allows."""
        self.pool.draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._file.recipe.drain_s):
                while self.pool.in_flight:
                    await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """Finish what runs, then close."""
        await asyncio.gather(*(listener.stop() for listener in self._listeners))
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        await self._resources.aclose()

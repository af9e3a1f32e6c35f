"""The gateway as a live object: two listening ports, the watch over the pool, and their end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable

from hyperpd.errors import NotReady
from hyperpd.placement import Placement
from hyperpd.recipe import RecipeFile
from hyperpd_runtime.gateway import app, pool
from hyperpd_runtime.gateway.discovery import Endpoint
from hyperpd_runtime.gateway.flow import Flow
from hyperpd_runtime.listen import Listener

WARM_UP_TIMEOUT_S = 120  # first contact of a pair took up to 28 s on a loaded machine


class Gateway:
    """Serve until `stop`."""

    def __init__(
        self,
        file: RecipeFile,
        endpoints: Iterable[Endpoint],
        address: str,
        placement: Placement,
        drain: Callable[[], None],
    ) -> None:
        self.pool = pool.Pool(endpoints)
        self._file = file
        self._address = address
        self._begin_drain = drain
        self._ports = placement
        self._resources = contextlib.AsyncExitStack()
        self._listeners: list[Listener] = []
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen on both ports and begin to prove the pairs."""
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
        session = await self._resources.enter_async_context(pool.session())
        flow = Flow(session, self.pool, self._file.recipe)
        self._resources.push_async_callback(flow.close)
        self._watch = asyncio.create_task(self.pool.watch(session, flow.canary))
        for port, asgi in (
            (self._ports.api_port, app.api(flow, self.pool, self._file)),
            (self._ports.admin_port, app.admin(self.pool, self._file, self._begin_drain)),
        ):
            self._listeners.append(Listener(asgi, self._address, port, self._file.recipe.drain_s))
            await self._listeners[-1].start()

    async def until_ready(self) -> None:
        """Return when a request would be served as the recipe says. Raises NotReady."""
        try:
            async with asyncio.timeout(WARM_UP_TIMEOUT_S):
                while self.pool.not_ready():
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise NotReady(f"not ready after {WARM_UP_TIMEOUT_S} s: {self.pool.not_ready()}") from None

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
        if self._watch:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await self._resources.aclose()

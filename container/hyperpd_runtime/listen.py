"""A FastAPI app listening on a port, inside the node's event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI

from hyperpd.errors import FabricError


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The node owns the signals."""
        yield


class Listener:
    """One listening port, until `stop`."""

    def __init__(self, app: FastAPI, address: str, port: int) -> None:
        self._where = f"{address}:{port}"
        self._server = _Server(
            uvicorn.Config(app, host=address, port=port, log_level="warning", access_log=False, lifespan="off")
        )
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return when it listens. Raises FabricError when it cannot."""
        self._task = asyncio.create_task(self._server.serve())
        while not self._server.started:
            if self._task.done():
                raise FabricError(f"cannot listen on {self._where}")
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Finish what runs, then close."""
        self._server.should_exit = True
        if self._task:
            await self._task

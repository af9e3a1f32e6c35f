"""A FastAPI app listening on a port, inside the node's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator

import uvicorn
from fastapi import FastAPI

from hyperpd.errors import FabricError


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The node owns the signals."""
        yield


Protocol = Callable[..., asyncio.Protocol]  # of one connection
# Of one connection. What a client does not read waits with us, who count it, and not in the kernel, whose own buffers
# grow to megabytes that count towards a container's memory.
_SEND_BUFFER_BYTES = 128 << 10


class Listener:
    """One listening port, until `stop`.

    drain_s: how long running requests may take after that. protocol: how its connections are treated. tls: none is
    plain HTTP.
    """

    def __init__(
        self,
        app: FastAPI,
        address: str,
        port: int,
        drain_s: int = 5,
        protocol: Protocol | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._address = (address, port)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            lifespan="off",
            http=protocol or "httptools",  # type: ignore[arg-type]  # it only calls it
            ws="none",
            proxy_headers=False,  # who asks is who is at the socket's other end, whatever X-Forwarded-For says
            server_header=False,
            timeout_graceful_shutdown=drain_s,
        )
        config.load()
        config.ssl = tls  # a context of ours: uvicorn's would keep its first certificate for ever
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return when it listens. Raises FabricError when it cannot."""
        try:  # here and not in uvicorn, which would end the whole process
            listening = socket.create_server(self._address, backlog=2048)
        except OSError as error:
            raise FabricError(f"cannot listen on {self._address[0]}:{self._address[1]}: {error.strerror}") from None
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)  # its connections inherit it
        self._task = asyncio.create_task(self._server.serve(sockets=[listening]))
        while not self._server.started:
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Finish what runs, then close."""
        self._server.should_exit = True
        if self._task:
            await self._task

"""A real NIXL transfer between two machines: `hyperpd doctor --listen` on one, `--peer` on the other.

The listener shows a block of memory whose content both sides can compute; the peer reads it the way
a decode worker reads KV, looks at every byte, and measures. Host memory only: GPU memory is unverified.
"""

from __future__ import annotations

import base64
import json
import os
import random
import socket
import sys
import time
import uuid
from typing import Any

from hyperpd.errors import FabricError

SIZE_BYTES = 64 << 20
_READS = 8
_TIMEOUT_S = 60.0


def _content() -> bytes:
    return random.Random(0).randbytes(1 << 20) * (SIZE_BYTES >> 20)


def _agent(backend: str) -> Any:
    from nixl_cu12._api import nixl_agent, nixl_agent_config

    return nixl_agent(f"doctor-{uuid.uuid4().hex[:8]}", nixl_agent_config(backends=[backend]))


def listen(address: str, port: int, backend: str) -> None:
    """Serve one peer, then end this process (a NIXL agent of UCX crashes at an orderly exit on a host without GPU)."""
    import numpy

    memory = numpy.frombuffer(bytearray(_content()), dtype=numpy.uint8)
    agent = _agent(backend)
    region = (memory.ctypes.data, SIZE_BYTES, 0, "")
    agent.register_memory([region], "DRAM", backends=[backend])
    offer = {"agent": base64.b64encode(agent.get_agent_metadata()).decode(), "at": region[0]}
    with socket.create_server((address, port)) as server:
        print(f"listening on {address}:{server.getsockname()[1]}", flush=True)
        connection, _ = server.accept()
        with connection:
            connection.sendall(json.dumps(offer).encode() + b"\n")
            connection.recv(1)  # the peer is done, or gone
    sys.stdout.flush()
    os._exit(0)


def measure(host: str, port: int, backend: str) -> dict[str, Any]:
    """Read from a listener. {"gb_s": GB/s of the best read, "bytes": of one read}. Raises FabricError.

    The caller ends the process with os._exit.
    """
    import numpy

    try:
        connection = socket.create_connection((host, port), timeout=_TIMEOUT_S)
    except OSError as error:
        raise FabricError(f"{host}:{port}: {error}; start there: hyperpd doctor --listen") from None
    with connection, connection.makefile() as lines:
        offer = json.loads(lines.readline())
        memory = numpy.zeros(SIZE_BYTES, dtype=numpy.uint8)
        agent = _agent(backend)
        agent.register_memory([(memory.ctypes.data, SIZE_BYTES, 0, "")], "DRAM", backends=[backend])
        there = agent.add_remote_agent(base64.b64decode(offer["agent"]))
        ours = agent.get_xfer_descs([(memory.ctypes.data, SIZE_BYTES, 0)], "DRAM")
        theirs = agent.get_xfer_descs([(offer["at"], SIZE_BYTES, 0)], "DRAM")
        best_s = float("inf")
        for _ in range(_READS):
            memory[:] = 0
            best_s = min(best_s, _read(agent, ours, theirs, there))
        if memory.tobytes() != _content():
            raise FabricError(f"what was read from {host}:{port} is not what lies there")
        connection.sendall(b".")
    return {"gb_s": SIZE_BYTES / best_s / 1e9, "bytes": SIZE_BYTES}


def _read(agent: Any, ours: Any, theirs: Any, there: Any) -> float:
    handle = agent.initialize_xfer("READ", ours, theirs, there)
    began = time.perf_counter()
    state = agent.transfer(handle)
    while state == "PROC":
        if time.perf_counter() - began > _TIMEOUT_S:
            raise FabricError(f"a read of {SIZE_BYTES >> 20} MiB did not end within {_TIMEOUT_S:.0f} s")
        state = agent.check_xfer_state(handle)
    took_s = time.perf_counter() - began
    agent.release_xfer_handle(handle)
    if state != "DONE":
        raise FabricError(f"the read ended as {state}")
    return took_s

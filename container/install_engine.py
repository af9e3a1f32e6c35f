"""Install the engine into the Python that runs this file: `python container/install_engine.py`.

On a machine with an NVIDIA GPU that is the `engine` extra. Elsewhere it is the CPU build of vLLM,
pinned with hashes in engine-cpu.lock. The public index has no CPU build of torch (its plain torch
is a CUDA build of several GB), so the exact `+cpu` build is asked for: first from whatever pip is
configured for, then from PyTorch's own CPU index. Standard library only; done twice, it does nothing.
"""

from __future__ import annotations

import ctypes
import hashlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LOCK = Path(__file__).with_name("engine-cpu.lock")
PROJECT = LOCK.parent.parent
PYTORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
LIBNUMA = Path(sys.prefix) / "hyperpd-libnuma.so.1"
STAMP = Path(sys.prefix) / "hyperpd-engine"


class Refused(Exception):
    """What happened and what to try."""


def main() -> None:
    """Install what is missing; a line for each step."""
    _check_machine()
    if _gpu():
        _step("engine for GPUs (unverified)", "install", "--editable", f"{PROJECT}[engine]")
        return
    wanted = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    if STAMP.is_file() and STAMP.read_text() == wanted and _torch_version().endswith("+cpu"):
        print("engine: already installed")
        return
    torch, rest = _split_lock(LOCK.read_text())
    _install_torch(torch)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "requirements.txt"
        file.write_text(rest)
        _step("engine packages", "install", "--no-deps", "--require-hashes", "--requirement", str(file))
    _check_torch()
    _libnuma()
    STAMP.write_text(wanted)


def _check_machine() -> None:
    if platform.system() != "Linux" or not (3, 11) <= sys.version_info[:2] <= (3, 14):
        raise Refused(
            f"the engine runs on Linux with Python 3.11 to 3.14; this is {platform.system()} with Python"
            f" {platform.python_version()}. Use a Linux container: python:3.11-slim-bookworm with make and git"
        )
    if not _reference():
        print(
            f"note: {platform.machine()} with Python {platform.python_version()} is unverified; reference: x86_64, 3.11"
        )


def _reference() -> bool:
    return platform.machine() == "x86_64" and sys.version_info[:2] == (3, 11)


def _gpu() -> bool:
    if not shutil.which("nvidia-smi"):
        return False
    found = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    return found.returncode == 0 and "GPU" in found.stdout


def _split_lock(lock: str) -> tuple[str, str]:
    """torch's requirement with its hash, and all the others."""
    entries = re.split(r"\n(?=[a-zA-Z])", lock)
    torch = [entry for entry in entries if entry.startswith("torch==")]
    return torch[0], "\n".join(entry for entry in entries if entry not in torch)


def _install_torch(requirement: str) -> None:
    if _torch_version().endswith("+cpu"):
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "torch.txt"
        hashes = ["--require-hashes"]
        if not _reference():
            print("note: torch is not checked against a hash here: the lock knows the reference machine's wheel only")
            requirement, hashes = requirement.split()[0], []
        file.write_text(requirement)
        arguments = ["install", "--no-deps", *hashes, "--requirement", str(file)]
        try:
            _step("torch, CPU build", *arguments)
        except Refused as error:
            if "No matching distribution" not in str(error):
                raise
            print("torch: pip's own indexes have no CPU build of it")
            _step("torch, CPU build, from PyTorch's index", *arguments, "--index-url", PYTORCH_CPU_INDEX)
    _check_torch()


def _torch_version() -> str:
    code = "import importlib.metadata as m; print(m.version('torch'))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip()


def _check_torch() -> None:
    version = _torch_version()
    if not version.endswith("+cpu"):
        raise Refused(f"torch {version or 'is missing'}, not its CPU build; remove .venv and run make up again")


def _libnuma() -> None:
    """Where the system has no libnuma.so.1, which vLLM's CPU build needs, take the one in NIXL's package.

    It bears another name inside; the name is put right in a copy, which hyperpd_runtime.cpu_engine loads.
    """
    try:
        ctypes.CDLL("libnuma.so.1")
        return
    except OSError:
        pass
    found = list(Path(sys.prefix).glob("lib/python*/site-packages/nixl_cu12.libs/libnuma-*.so*"))
    if not found:
        raise Refused("libnuma.so.1 is missing and NIXL's package has none; install it: apt-get install libnuma1")
    name = found[0].name.encode()
    LIBNUMA.write_bytes(found[0].read_bytes().replace(name, b"libnuma.so.1".ljust(len(name), b"\0")))
    print("libnuma: the system has none; using the one in NIXL's package")


def _step(name: str, *arguments: str) -> None:
    print(f"{name} …", flush=True)
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "pip", "--quiet", *arguments], capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line and "is ignored: it is neither" not in line]
        raise Refused(f"{name}: pip failed\n" + "\n".join(f"  {line}" for line in lines[-15:]))
    print(f"{name}: done in {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    try:
        main()
    except Refused as error:
        sys.exit(f"error: {error}")

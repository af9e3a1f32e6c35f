"""The code that reads what others send, under a fuzzer: a minute here, half an hour nightly; what was found stays."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.targets import SEEDS, TARGETS

CASES = Path(__file__).parent / "cases"  # a folder for each target
ROOT = Path(__file__).parents[2]
HANGS_S, MOST_BYTES, MOST_MIB = 10, 4096, 1024
_WHEEL = sys.platform == "linux" and platform.machine() == "x86_64" and sys.version_info < (3, 14)


@pytest.mark.parametrize(
    "case", [pytest.param(path, id=f"{path.parent.name}/{path.name}") for path in CASES.glob("*/*")]
)
def test_what_was_found_once_is_mended(case: Path) -> None:
    TARGETS[case.parent.name](case.read_bytes())


@pytest.mark.parametrize("target", TARGETS)
def test_a_targets_seeds_hold(target: str) -> None:
    for seed in [b"", bytes(200), bytes(range(256)) * 2, *SEEDS.get(target, [])]:
        TARGETS[target](seed)


@pytest.mark.skipif(not _WHEEL, reason="atheris is built for Linux on x86-64, Python 3.11 to 3.13")
@pytest.mark.parametrize(
    "total_s", [pytest.param(60, id="60 s"), pytest.param(1800, id="30 min", marks=pytest.mark.nightly)]
)
def test_nothing_new_is_found(total_s: int, tmp_path: Path) -> None:
    found = []
    for target in TARGETS:
        folder = tmp_path / target
        folder.mkdir()
        said = fuzz(target, folder, total_s // len(TARGETS))
        done = re.search(r"DONE +cov: (\d+) .* exec/s: (\d+)", said)
        print(f"{target}: {done.group(0) if done else 'ended early'}")
        if not done:
            found.append(f"{target}: {folder}/found-*\n{said[-3000:]}")
    assert not found, "\n".join(found)


def fuzz(target: str, folder: Path, seconds: int) -> str:
    """What the fuzzer says of one target. Inputs that break it are written to `folder`."""
    argv = [
        *(
            sys.executable,
            "-m",
            "tests.fuzz",
            target,
            f"-artifact_prefix={folder}/found-",
            f"-max_total_time={seconds}",
        ),
        *(
            f"-timeout={HANGS_S}",
            f"-max_len={MOST_BYTES}",
            "-rss_limit_mb=0",
            f"-malloc_limit_mb={MOST_MIB}",
            "-reload=0",
            str(folder),
        ),
        *(str(path) for path in [CASES / target] if path.is_dir()),
    ]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(argv, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return ran.stdout.decode(errors="replace")

"""What each extra of hyperpd costs to import and to install, beside boto3, the SageMaker SDK and hyp.

python tests/bench/import_times.py [--runs 5]

Makes an environment for each under a temporary folder, from the package index. SAGEMAKER_SDK_PYTHON and HYP_PYTHON name
the Pythons of environments that are there already. Times are the least of the runs, user and system together, with
files in the page cache; ratios are against boto3's in the same run.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Subject:
    """`install`: what pip is given. `variable`: names a Python that has it already."""

    name: str
    install: tuple[str, ...]
    code: str
    variable: str = ""


_CLIENT = "import boto3; boto3.client('sagemaker', region_name='us-east-1')"
_BASE = (str(ROOT),)
SUBJECTS = (
    Subject("boto3", ("boto3",), "import boto3"),
    Subject("boto3, a client for SageMaker", ("boto3",), _CLIENT),
    Subject("hyperpd", _BASE, "import hyperpd"),
    Subject("hyperpd --help", _BASE, "import sys; sys.argv=['hyperpd', '-h']; import hyperpd.cli.main as m; m.main()"),
    Subject("hyperpd, a recipe placed", _BASE, "from hyperpd.recipe import load; import hyperpd.placement"),
    Subject("hyperpd.cluster", _BASE, "from hyperpd.cluster import Cluster"),
    Subject("hyperpd.client", _BASE, "import hyperpd.client"),
    Subject("hyperpd[aws], clusters", (f"{ROOT}[aws]",), f"from hyperpd.cluster import Cluster; {_CLIENT}"),
    Subject("hyperpd[gateway], the gateway", (f"{ROOT}[gateway]",), "import hyperpd_runtime.gateway.app"),
    Subject(
        *("sagemaker-core, Cluster", ("sagemaker-core==2.27.0",), "from sagemaker.core.resources import Cluster"),
        variable="SAGEMAKER_SDK_PYTHON",
    ),
    Subject(
        *("hyp, its command line", ("sagemaker-hyperpod==3.12.0",), "import sagemaker.hyperpod.cli.hyp_cli"),
        variable="HYP_PYTHON",
    ),
)


def python(folder: Path, subject: Subject) -> Path:
    """The Python of an environment that has what the subject needs."""
    if subject.variable and (given := os.environ.get(subject.variable)):
        return Path(given)
    place = folder / "".join(letter for letter in "+".join(subject.install) if letter.isalnum())
    if not place.exists():
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        quiet = ("-m", "pip", "--quiet", "--disable-pip-version-check", "install")
        subprocess.run([place / "bin/python", *quiet, *subject.install], check=True)
    return place / "bin/python"


def cpu_s(interpreter: Path, code: str, runs: int) -> float:
    """CPU seconds of `code` in a new process, less those of an empty one; the least of the runs."""
    empty = min(_once(interpreter, "") for _ in range(runs))
    return max(0.0, min(_once(interpreter, code) for _ in range(runs)) - empty)


def _once(interpreter: Path, code: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    subprocess.run([interpreter, "-c", code], check=True, stdout=subprocess.DEVNULL, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def installed(interpreter: Path) -> tuple[int, int]:
    """Packages and bytes of an environment, without pip, setuptools and compiled code."""
    code = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    found = subprocess.run([interpreter, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    tools = ("pip", "setuptools", "_distutils_hack", "pkg_resources")
    top = [one for one in Path(found).iterdir() if one.name.partition("-")[0].lower() not in tools]
    files = [file for one in top for file in ([one] if one.is_file() else one.rglob("*")) if file.is_file()]
    size = sum(file.stat().st_size for file in files if file.suffix != ".pyc")
    return sum(one.name.endswith(".dist-info") for one in top), size


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--runs", type=int, default=5)
    runs = arguments.parse_args().runs
    print(f"Python {sysconfig.get_python_version()}, {os.cpu_count()} CPUs, the least of {runs} runs\n")
    print("| what | CPU s | against boto3 | packages | MB | against boto3 |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        reference: tuple[float, int] | None = None
        for subject in SUBJECTS:
            interpreter = python(Path(folder), subject)
            _once(interpreter, subject.code)  # compiles, and fills the page cache
            seconds, (packages, size) = cpu_s(interpreter, subject.code, runs), installed(interpreter)
            reference = reference or (seconds, size)
            times = f"{seconds:.2f} | {seconds / reference[0]:.1f}×"
            sizes = f"{size / 1e6:.0f} | {size / reference[1]:.1f}×"
            print(f"| {subject.name} | {times} | {packages} | {sizes} |", flush=True)


if __name__ == "__main__":
    main()

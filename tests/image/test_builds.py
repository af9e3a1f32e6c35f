"""A build that would give a broken image fails, and says what is wrong.

The CUDA image cannot be built here. Its stage runs all the same, on a base with the CPU engine and
with a stand-in for the EFA installer that installs nothing.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from tests.image.tools import Tools

pytestmark = pytest.mark.image

INSTALLER = b'#!/bin/sh\necho "installer: $*"\n'


@pytest.fixture(scope="module")
def engine_base(tools: Tools, base: str) -> str:
    """`base` as if vLLM were installed in it."""
    dockerfile = tools.folder / "Dockerfile"
    dockerfile.write_text(f"FROM {base}\nENV PYTHONPATH=/engine\n")
    code, output = tools.build(base, dockerfile=dockerfile, tag="localhost/engine")
    assert code == 0, output
    return "localhost/engine"


@pytest.fixture(scope="module")
def installer(tools: Tools) -> dict[str, str]:
    """Build arguments for a stand-in of the EFA installer."""
    path = tools.folder / "efa" / "efa.tar.gz"
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as tar:
        script = tarfile.TarInfo("aws-efa-installer/efa_installer.sh")
        script.size, script.mode = len(INSTALLER), 0o755
        tar.addfile(script, io.BytesIO(INSTALLER))
    return {"EFA_URL": "file:///efa/efa.tar.gz", "EFA_SHA256": _sha256(path)}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_efa_needs_a_checksum(tools: Tools, base: str) -> None:
    code, output = tools.build(base, ENGINE="gpu")
    assert code != 0
    assert "error: EFA_SHA256 is missing" in output
    assert "EFA=none" in output


def test_efa_of_another_checksum_is_not_run(tools: Tools, base: str, installer: dict[str, str]) -> None:
    code, output = tools.build(base, **{**installer, "ENGINE": "gpu", "EFA_SHA256": "0" * 64})
    assert code != 0
    assert "/tmp/efa.tar.gz: FAILED" in output
    assert "installer: " not in output


def test_a_plugin_that_cannot_load_fails_the_build(tools: Tools, engine_base: str, installer: dict[str, str]) -> None:
    code, output = tools.build(engine_base, ENGINE="gpu", **installer)
    assert code != 0
    assert "installer: -y --skip-kmod --skip-limit-conf --no-verify --disable-ngc" in output
    assert "error: NIXL plugin LIBFABRIC: OSError: libfabric.so.1: cannot open shared object file" in output


def test_without_efa_the_plugin_is_not_loaded(tools: Tools, engine_base: str) -> None:
    code, output = tools.build(engine_base, ENGINE="gpu", EFA="none")
    assert code == 0, output
    assert "this image cannot use EFA" in output


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"VERSION": "9.9.9"}, "error: VERSION is 9.9.9, but here is "),
        ({"RECIPE_VERSION": "9"}, "error: RECIPE_VERSION is 9, but here is 1"),
    ],
)
def test_labels_do_not_lie(tools: Tools, base: str, argument: dict[str, str], message: str) -> None:
    code, output = tools.build(base, ENGINE="none", **argument)
    assert code != 0
    assert message in output

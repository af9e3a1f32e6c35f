"""The transport on this machine: real plugins, and refusals that name what is missing."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from hyperpd import fabric
from hyperpd.environment import Environment
from hyperpd.errors import FabricError, RecipeError
from hyperpd.fabric import Present
from hyperpd.recipe import load, parse
from hyperpd_runtime import transport

SETTINGS = Environment(role="prefill", recipe="r")
EFA = Present(efa=["efa_0"], uverbs=1, gpudirect=["efa_0"], gpus=8, network=["lo"], memlock_unlimited=True)


def recipe(**kv_transfer: object):  # type: ignore[no-untyped-def]
    document = {"version": 1, "name": "r", "model": {"huggingface": "org/model"}, "prefill": {}, "decode": {}}
    return parse({**document, "kv_transfer": kv_transfer}, "test")


def test_tcp_on_this_machine() -> None:
    decision = transport.decide(load("tiny-cpu-1p1d").recipe, SETTINGS)
    assert (decision.fabric, decision.environment["UCX_NET_DEVICES"]) == ("tcp", "lo")


def test_efa_that_is_not_there() -> None:
    with pytest.raises(FabricError, match="EFA devices: 0") as caught:
        transport.decide(recipe(), SETTINGS)
    assert "kv_transfer.allow_tcp: true in the recipe takes TCP instead" in str(caught.value)
    assert transport.decide(recipe(allow_tcp=True), SETTINGS).fabric == "tcp"


@pytest.mark.skipif(not shutil.which("gcc"), reason="NOT RUN: fabric: gcc is missing")
def test_a_plugin_that_does_not_load_is_refused_and_what_it_lacks_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """EFA is there, but a library that NIXL's plugin needs is not, or is too old."""
    monkeypatch.setattr(fabric, "look", lambda: EFA)
    with pytest.raises(FabricError, match=r"lib\w+\.so\.\d+: cannot open") as caught:
        transport.decide(recipe(), SETTINGS)
    assert "pair NIXL with its EFA installer" in str(caught.value)
    # A driver and a libfabric without the symbols of its newer versions.
    (tmp_path / "versions").write_text("FABRIC_1.0 { };\nFABRIC_1.1 { };\nFABRIC_1.7 { };\n")
    for name in ("libcuda.so.1", "libcudart.so.12", "libhwloc.so.15", "libfabric.so.1"):
        library = [*["gcc", "-shared", "-x", "c", "/dev/null", "-o"], str(tmp_path / name), f"-Wl,-soname,{name}"]
        old = [f"-Wl,--version-script={tmp_path}/versions"] if "fabric" in name else []
        subprocess.run([*library, *old], check=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    with pytest.raises(FabricError, match=r"version `FABRIC_1\.10' not found"):
        transport.decide(recipe(), SETTINGS)


def test_too_few_devices_for_the_instance_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fabric, "look", lambda: EFA)
    with pytest.raises(FabricError, match="EFA devices: 1, wanted 32"):
        transport.decide(recipe(), SETTINGS.model_copy(update={"instance_type": "ml.p5.48xlarge"}))
    with pytest.raises(RecipeError, match=r"did you mean ml\.p5\.48xlarge"):
        transport.decide(recipe(), SETTINGS.model_copy(update={"instance_type": "p5.48xlarge"}))


def test_allowed_tcp_keeps_the_connector_its_peers_expect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fabric, "look", lambda: replace(EFA, gpus=1))
    decision = transport.decide(recipe(fabric="local", allow_tcp=True), SETTINGS)
    assert (decision.fabric, decision.connector) == ("tcp", "NixlPushConnector")

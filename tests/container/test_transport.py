"""The transport on this machine: real plugins, and refusals that name what is missing."""

from __future__ import annotations

from dataclasses import replace

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


def test_a_plugin_that_does_not_load_is_refused_and_what_it_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """EFA is there, but this machine's libfabric is older than NIXL's plugin needs, or missing."""
    monkeypatch.setattr(fabric, "look", lambda: EFA)
    with pytest.raises(FabricError, match=r"FABRIC_1\.10|libfabric\.so\.1") as caught:
        transport.decide(recipe(), SETTINGS)
    assert "pair NIXL with its EFA installer" in str(caught.value)


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

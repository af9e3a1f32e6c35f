"""Settings: what wins over what, and every problem at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyperpd.errors import RecipeError
from hyperpd.recipe import load
from hyperpd_runtime import settings

BASE = ["--role", "node", "--recipe", "r"]


def test_argv_wins_over_environment() -> None:
    environ = {"HYPERPD_ROLE": "prefill", "HYPERPD_RECIPE": "r", "HYPERPD_ORDINAL": "2", "PATH": "/bin"}
    found = settings.read(["--role", "decode", "--port-offset=5"], environ).environment
    assert (found.role, found.recipe, found.ordinal, found.port_offset) == ("decode", "r", 2, 5)


def test_every_problem_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        settings.read(
            ["--rolle", "x", "loose", "--ordinal", "-1", "--address", "node-7", "--decode", "foo", "--", "--port", "1"],
            {"HYPERPD_RECIPY": "r", "SM_VLLM_BLOCK_SIZE": "16", "SAGEMAKER_BIND_TO_PORT": "x"},
        )
    text = "\n".join(caught.value.problems)
    for says in (
        "HYPERPD_RECIPY: unknown; did you mean recipe?",
        "--rolle: unknown; did you mean role?",
        "loose: settings are --name value",
        "ordinal:",
        "role: missing",
        "address: 'node-7' does not appear to be an IPv4 or IPv6 address",
        "decode: 'foo' is not like http://10.0.0.1:8100",
        "--port is set by hyperpd from the placement",
        "block_size is set by hyperpd from kv_transfer.block_size_tokens",
        "SAGEMAKER_BIND_TO_PORT: not a port",
    ):
        assert says in text


def test_which_model_wins(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    ways = [
        (["--model", "a"], {}, "a"),
        ([], {"HYPERPD_MODEL": "b"}, "b"),
        ([], {"SM_VLLM_MODEL": "c"}, "c"),
        ([], {"HF_MODEL_ID": "d"}, "d"),
        ([], {}, str(tmp_path)),
    ]
    environ: dict[str, str] = {}
    for argv, more, wins in reversed(ways):  # each stronger than all before
        environ |= more
        assert settings.read([*BASE, *argv], environ, tmp_path).environment.model == wins
    assert settings.read(BASE, {}, tmp_path / "none").environment.model == ""


def test_options_of_vllm() -> None:
    argv = [*BASE, "--", "--max-num-seqs", "8", "--enforce-eager", "--seed=7", "--no-enable-prefix-caching"]
    found = settings.read(
        argv, {"SM_VLLM_SEED": "3", "SM_VLLM_ENFORCE_EAGER": "false", "SM_VLLM_KV_CACHE_DTYPE": "fp8"}
    )
    assert found.options == {
        "seed": "7",
        "enforce-eager": True,
        "kv-cache-dtype": "fp8",
        "max-num-seqs": "8",
        "no-enable-prefix-caching": True,
    }


def test_ucx_devices_of_the_container() -> None:
    environ = {"UCX_NET_DEVICES": "eth0"}
    assert settings.read(BASE, environ).environment.net_devices == "eth0"
    assert settings.read([*BASE, "--net-devices", "eth1"], environ).environment.net_devices == "eth1"


def test_kubernetes_says_which_machine_of_a_worker_this_is() -> None:
    environ = {"LWS_WORKER_INDEX": "1", "LWS_LEADER_ADDRESS": "decode-0.decode.pd"}
    told = settings.read(BASE, environ).environment
    assert (told.node_rank, told.leader) == (1, "decode-0.decode.pd")
    assert settings.read([*BASE, "--node-rank", "0"], environ).environment.node_rank == 0


def test_the_port_of_the_platform() -> None:
    assert settings.read(BASE, {"SAGEMAKER_BIND_TO_PORT": "9000"}).api_port == 9000


def test_the_api_may_listen_apart_and_a_model_keep_its_name() -> None:
    told = settings.read(BASE, {"HYPERPD_API_ADDRESS": "0.0.0.0", "HYPERPD_SERVED_AS": "org/model"}).environment
    assert (told.address, told.api_address, told.served_as) == ("127.0.0.1", "0.0.0.0", "org/model")
    for name, value in (("--api-address", "node-7"), ("--address", "")):
        with pytest.raises(RecipeError, match="does not appear to be an IPv4 or IPv6 address"):
            settings.read([*BASE, name, value], {})
    served = load("tiny-cpu-1p1d").serving("/opt/ml/model", "org/model").recipe.model
    assert (served.path, served.name) == ("/opt/ml/model", "org/model")
    assert load("tiny-cpu-1p1d").serving("/opt/ml/model").recipe.model.name == "model"

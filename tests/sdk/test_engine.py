"""The engine's argv and environment, derived from recipe and placement."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest

from hyperpd.engine import Launch, launch
from hyperpd.errors import RecipeError
from hyperpd.placement import Machine, place
from hyperpd.recipe import load, parse


def launched(recipe: str, name: str, **options: Any) -> Launch:
    file = load(recipe)
    worker = place(file.recipe).worker(name)
    assert worker is not None
    return launch(file.recipe, worker, model_path="/models/m", **options)


def value(command: Launch, flag: str) -> str:
    assert command.argv.count(flag) == 1
    return command.argv[command.argv.index(flag) + 1]


@pytest.mark.parametrize(("name", "role"), [("prefill-0", "kv_producer"), ("decode-0", "kv_consumer")])
def test_the_connector_of_each_role(name: str, role: str) -> None:
    config = json.loads(value(launched("tiny-cpu-1p1d", name, start_id="s7"), "--kv-transfer-config"))
    assert config["kv_connector"] == "NixlConnector"
    assert config["kv_role"] == role
    assert config["engine_id"] == f"{name}-s7"
    assert config["kv_buffer_device"] == "cpu"
    assert config["kv_load_failure_policy"] == "fail"
    assert config["kv_connector_extra_config"] == {"backends": ["UCX"], "kv_lease_duration": 120}


def test_both_roles_of_a_pair_agree_on_what_the_handshake_compares() -> None:
    prefill, decode = (launched("tiny-cpu-1p1d", name) for name in ("prefill-0", "decode-0"))
    for flag in ("--model", "--dtype", "--block-size", "--max-model-len", "--tensor-parallel-size"):
        assert value(prefill, flag) == value(decode, flag)
    assert value(prefill, "--block-size") == "128"
    assert value(prefill, "--port") != value(decode, "--port")
    assert prefill.env["VLLM_NIXL_SIDE_CHANNEL_PORT"] == "5600"
    assert decode.env["VLLM_NIXL_SIDE_CHANNEL_PORT"] == "5601"


def test_aggregated_has_no_connector() -> None:
    command = launched("tiny-cpu-aggregated", "aggregated-0")
    assert "--kv-transfer-config" not in command.argv
    assert not [key for key in command.env if "NIXL" in key or key.startswith("UCX")]


def test_gpu_workers_see_their_own_gpu() -> None:
    commands = [launched("tiny-gpu-1p1d", name) for name in ("prefill-0", "decode-0")]
    assert [command.env["CUDA_VISIBLE_DEVICES"] for command in commands] == ["0", "1"]
    assert json.loads(value(commands[0], "--kv-transfer-config"))["kv_buffer_device"] == "cuda"


@pytest.mark.parametrize(
    ("option", "rendered"),
    [
        ({"enforce-eager": True}, ["--enforce-eager"]),
        ({"enable_prefix_caching": False}, ["--no-enable-prefix-caching"]),
        ({"--max-num-seqs": 32}, ["--max-num-seqs", "32"]),
        ({"gpu-memory-utilization": 0.5}, ["--gpu-memory-utilization", "0.5"]),
        ({"compilation-config": {"level": 0}}, ["--compilation-config", '{"level": 0}']),
        ({"cudagraph-capture-sizes": [1, 2]}, ["--cudagraph-capture-sizes", "1", "2"]),
    ],
)
def test_engine_options_are_passed_through(option: dict[str, Any], rendered: list[str]) -> None:
    recipe = parse(
        {
            "version": 1,
            "name": "one",
            "model": {"huggingface": "org/model", "revision": "abc"},
            "aggregated": {"engine": option},
        },
        "test",
    )
    command = launch(recipe, place(recipe).workers[0], model_path="org/model")
    assert list(command.argv[-len(rendered) :]) == rendered
    assert value(command, "--revision") == "abc"
    assert value(command, "--served-model-name") == "org/model"


def test_the_shell_line_is_the_same_command() -> None:
    command = launched("tiny-cpu-1p1d", "prefill-0")
    words = shlex.split(command.shell())
    assert words == [*(f"{key}={text}" for key, text in command.env.items()), *command.argv]


@pytest.mark.parametrize(
    ("model", "option", "offline"),
    [
        ({"path": "/models/m"}, {}, True),
        ({"generated": "tiny-llama"}, {"tokenizer": "/models/t"}, True),
        ({"huggingface": "org/model"}, {}, False),
        ({"path": "/models/m"}, {"tokenizer": "gpt2"}, False),
        ({"path": "/models/m"}, {"speculative-config": {"model": "org/draft"}}, False),
        ({"path": "/models/m"}, {"speculative-config": '{"model": "org/draft"}'}, False),
        ({"path": "/models/m", "adapters": [{"name": "a", "huggingface": "org/b"}]}, {}, False),
        ({"path": "/models/m", "adapters": [{"name": "a", "path": "/models/a"}]}, {}, True),
    ],
)
def test_the_hub_is_left_alone_where_nothing_comes_from_it(
    model: dict[str, Any], option: dict[str, Any], offline: bool
) -> None:
    pair = {"prefill": {}, "decode": {"engine": option}}
    blocks = {"aggregated": {"engine": option}} if "speculative-config" in option else pair
    recipe = parse({"version": 1, "name": "one", "model": model, **blocks}, "test")
    machines = (Machine("10.0.0.1"), Machine("10.0.0.2"))
    commands = [launch(recipe, worker, model_path="m") for worker in place(recipe, machines).workers]
    # All or none: the engines of one machine may share a process that has read it (process.Warm).
    assert [command.env.get("HF_HUB_OFFLINE") for command in commands] == ["1" if offline else None] * len(commands)


def wide(role: str, accelerator: str = "gpu", **parallel: Any) -> list[Launch]:
    roles = {"aggregated": {}} if role == "aggregated" else {"prefill": {}, "decode": {}}
    document = {"version": 1, "name": "wide", "accelerator": accelerator, "model": {"path": "/models/m"}, **roles}
    recipe = parse(document | {role: {"parallel": parallel}, "kv_transfer": {"fabric": "tcp"}}, "test")
    machines = tuple(Machine(f"10.0.0.{n}") for n in range(1, 4))
    return [launch(recipe, w, model_path="/models/m") for w in place(recipe, machines).workers if w.role == role]


def test_data_parallel_ranks_over_two_machines() -> None:
    first, second = wide("decode", data=16, nodes=2, expert=True)
    for part in (first, second):
        assert part.argv[2:4] == ("vllm.entrypoints.cli.main", "serve")
        assert "--enable-expert-parallel" in part.argv
        assert (value(part, "--data-parallel-size"), value(part, "--data-parallel-size-local")) == ("16", "8")
        assert value(part, "--data-parallel-address") == "10.0.0.2"  # 10.0.0.1 has prefill
        assert value(part, "--data-parallel-rpc-port") == "29550"
    assert "--headless" not in first.argv
    assert "--data-parallel-start-rank" not in first.argv
    assert "--headless" in second.argv
    assert value(second, "--data-parallel-start-rank") == "8"
    assert first.env["VLLM_NIXL_SIDE_CHANNEL_HOST"] == "10.0.0.2"
    assert second.env["VLLM_NIXL_SIDE_CHANNEL_HOST"] == "10.0.0.3"


def test_tensor_and_pipeline_over_two_machines() -> None:
    first, second = wide("aggregated", tensor=8, pipeline=2, nodes=2)
    for rank, part in enumerate((first, second)):
        assert (value(part, "--nnodes"), value(part, "--node-rank")) == ("2", str(rank))
        assert (value(part, "--master-addr"), value(part, "--pipeline-parallel-size")) == ("10.0.0.1", "2")
        assert part.env["CUDA_VISIBLE_DEVICES"] == "0,1,2,3,4,5,6,7"
    assert ["--headless" in part.argv for part in (first, second)] == [False, True]


def test_adapters_are_loaded_by_every_worker() -> None:
    model = {
        "path": "/models/m",
        "adapters": [{"name": "law", "path": "/models/law"}, {"name": "b", "huggingface": "o/b"}],
    }
    recipe = parse({"version": 1, "name": "a", "model": model, "prefill": {}, "decode": {}}, "test")
    for worker in place(recipe, (Machine("10.0.0.1"), Machine("10.0.0.2"))).workers:
        argv = launch(recipe, worker, model_path="/models/m").argv
        at = argv.index("--lora-modules")
        assert [json.loads(word)["path"] for word in argv[at + 1 : at + 3]] == ["/models/law", "o/b"]
        assert "--enable-lora" in argv
        assert "--max-loras" not in argv


def test_on_a_cpu_one_place_for_adapters_stays_empty() -> None:
    model = {"path": "/models/m", "adapters": [{"name": "law", "path": "/models/law"}]}
    recipe = parse({"version": 1, "name": "a", "accelerator": "cpu", "model": model, "aggregated": {}}, "test")
    (worker,) = place(recipe, (Machine("10.0.0.1"),)).workers
    argv = launch(recipe, worker, model_path="/models/m").argv
    assert argv[argv.index("--max-loras") + 1] == "2"


def test_the_managed_tier_is_a_child_beside_nixl_on_prefill_alone() -> None:
    pair = {"prefill": {"kv_tiers": {"managed": True}}, "decode": {}}
    recipe = parse({"version": 1, "name": "t", "model": {"path": "/models/m"}, **pair}, "test")
    machines = (Machine("10.0.0.1"), Machine("10.0.0.2"))
    prefill, decode = (
        launch(recipe, w, model_path="m", node_address="10.1.1.1") for w in place(recipe, machines).workers
    )
    config = json.loads(value(prefill, "--kv-transfer-config"))
    children = config["kv_connector_extra_config"]["connectors"]
    assert [child["kv_connector"] for child in children] == ["NixlConnector", "LMCacheConnectorV1"]
    assert prefill.env["LMCACHE_REMOTE_URL"] == "sagemaker-hyperpod://10.1.1.1:9200"
    assert "LMCACHE_REMOTE_URL" not in decode.env
    for part in (prefill, decode):  # both or none: it is part of the handshake
        assert "--disable-hybrid-kv-cache-manager" in part.argv


def test_an_aggregated_worker_over_several_machines_is_on_the_fabric_too() -> None:
    """Without FI_PROVIDER libfabric takes TCP and says nothing: the baseline would be a slow one."""
    for parallel, found in (({"data": 4, "nodes": 2}, "efa"), ({"data": 4}, None)):
        document = {"version": 1, "name": "a", "model": {"path": "/m"}, "aggregated": {"parallel": parallel}}
        recipe = parse(document, "test")
        for worker in place(recipe, (Machine("10.0.0.1"), Machine("10.0.0.2"))).workers:
            command = launch(recipe, worker, model_path="/m")
            assert command.env.get("FI_PROVIDER") == found
            assert "--kv-transfer-config" not in command.argv


def test_host_memory_of_a_tier_is_shared_by_the_ranks_of_a_machine() -> None:
    """vLLM's cpu_bytes_to_use is for each engine core."""
    prefill = {"parallel": {"data": 8, "nodes": 2}, "kv_tiers": {"memory_gib": 100}}
    recipe = parse({"version": 1, "name": "t", "model": {"path": "/m"}, "prefill": prefill, "decode": {}}, "test")
    machines = tuple(Machine(f"10.0.0.{n}") for n in range(1, 4))
    config = json.loads(
        value(launch(recipe, place(recipe, machines).workers[0], model_path="/m"), "--kv-transfer-config")
    )
    tier = config["kv_connector_extra_config"]["connectors"][1]
    assert tier["kv_connector_extra_config"]["cpu_bytes_to_use"] == 25 << 30


def test_the_api_may_listen_elsewhere_and_nothing_else_does() -> None:
    here, everywhere = (launched("tiny-cpu-1p1d", "decode-0", start_id="s", api_address=at) for at in ("", "0.0.0.0"))
    assert (value(here, "--host"), value(everywhere, "--host")) == ("127.0.0.1", "0.0.0.0")
    assert here.env == everywhere.env  # the side channel's address, too
    assert [a for a, b in zip(here.argv, everywhere.argv, strict=True) if a != b] == ["127.0.0.1"]


def exact(address: str = "127.0.0.1", api_address: str = "", **role: Any) -> Launch:
    document = {
        "version": 1,
        "name": "exact",
        "accelerator": "cpu",
        "model": {"generated": "tiny-moe"},
        "prefill": {},
        "decode": role,
        "kv_transfer": {"fabric": "tcp"},
        "gateway": {"prefix_view": "exact"},
    }
    recipe = parse(document, "test")
    worker = place(recipe, (Machine(address),)).worker("decode-0")
    assert worker is not None
    return launch(recipe, worker, model_path="/models/m", api_address=api_address)


@pytest.mark.parametrize("name", ["prefill-0", "decode-0"])
def test_no_worker_tells_its_cache_unasked(name: str) -> None:
    assert not {"--kv-events-config", "--enable-scale-out"} & set(launched("tiny-cpu-1p1d", name).argv)


@pytest.mark.parametrize(("api_address", "at"), [("", "10.0.0.9"), ("10.1.0.9", "10.1.0.9"), ("0.0.0.0", "0.0.0.0")])
def test_an_exact_view_is_told_where_the_api_listens(api_address: str, at: str) -> None:
    command = exact("10.0.0.9", api_address)
    config = json.loads(value(command, "--kv-events-config"))
    assert config["enable_kv_cache_events"]
    assert (config["endpoint"], config["replay_endpoint"]) == (f"tcp://[::ffff:{at}]:5558", f"tcp://[::ffff:{at}]:5578")
    assert "--enable-scale-out" in command.argv


def test_events_that_another_picker_needs_serve_the_gateway_too() -> None:
    config = {"enable_kv_cache_events": True, "publisher": "zmq", "endpoint": "tcp://*:5557", "topic": "kv@decode@m"}
    assert json.loads(value(exact(engine={"kv_events_config": config}), "--kv-events-config")) == config


def test_what_an_exact_view_cannot_be_told_of_is_refused() -> None:
    with pytest.raises(RecipeError) as refused:
        exact("fd00::9", parallel={"data": 2})
    ranks, address = refused.value.problems
    assert "decode.parallel.data is 2" in ranks
    assert "decode-0 listens at fd00::9" in address

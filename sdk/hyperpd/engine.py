"""launch(recipe, worker) → the argv and environment of one worker's vLLM. Imports no vLLM.

The same function is called by `hyperpd plan --launch` (to print) and by the container (to exec),
so what is printed is what runs.
"""

from __future__ import annotations

import ipaddress
import json
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hyperpd import fabric
from hyperpd.errors import RecipeError
from hyperpd.options import EngineOption
from hyperpd.placement import Worker
from hyperpd.recipe import KVTiers, Parallel, Recipe

# vLLM's module; its `vllm` script is absent from the CPU distribution.
VLLM_MODULE = "vllm.entrypoints.openai.api_server"
# Data parallelism and several machines go through `vllm serve`, which the module above does not know.
VLLM_SERVE = ("vllm.entrypoints.cli.main", "serve")
# On CPUs the same server, with two idle spins tamed (the module says why).
CPU_MODULE = "hyperpd_runtime.cpu_engine"

_KV_ROLE = {"prefill": "kv_producer", "decode": "kv_consumer"}
# The engine closes idle connections after 5 s by default; longer than the gateway's own pool keeps
# them (gateway/pool.py), and than llm-d's routing sidecar does (90 s), so that a connection is never
# closed under a request.
KEEP_ALIVE_S = 120
_HUB_ID = re.compile(r"([\w.-]+=)?[\w-][\w.-]*/[\w.-]+")  # also name=org/adapter
MANAGED_TIER_PORT = 9200  # HyperPod's tiered storage, a daemon on every machine
CPU_KV_CACHE_BYTES = 256 << 20
KV_EVENTS = "kv-events-config"
# Batches that can be asked for again, one for each step that stored or removed blocks: minutes of a busy engine, in
# some tens of MB of it.
REPLAY_BATCHES = 10_000


@dataclass(frozen=True, slots=True)
class Launch:
    """What a worker execs. `env` is added to the environment of the container; `cpus` empty: all."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cpus: tuple[int, ...] = ()

    def shell(self) -> str:
        """One line for a shell that starts the same process."""
        return " ".join(
            [
                *(f"{key}={shlex.quote(value)}" for key, value in self.env.items()),
                *(("taskset", "--cpu-list", ",".join(map(str, self.cpus))) if self.cpus else ()),
                *map(shlex.quote, self.argv),
            ]
        )


def launch(
    recipe: Recipe,
    worker: Worker,
    *,
    model_path: str,
    start_id: str = "START",
    decision: fabric.Decision | None = None,
    node_address: str = "NODE",
    api_address: str = "",
    certificate: tuple[str, str] | None = None,
) -> Launch:
    """The command of `worker`.

    model_path: folder or Hugging Face id, the same text on every worker of a pair (it is part of
                the connector's handshake).
    start_id:   new at every start; the connector's engine id ends with it, so that a ticket of an
                earlier start is refused by name.
    decision:   what fabric.decide found on the machine; default: all that the recipe wants is there.
    node_address: where HyperPod's tiered storage of this node listens; only kv_tiers.managed needs it.
    api_address: where the API alone listens, if not at the worker's address.
    certificate: PEM files of certificate and key, for an API that speaks TLS.

    Raises RecipeError where gateway.prefix_view: exact asks for KV events that this worker cannot tell.
    """
    decision = decision or fabric.plan(recipe.fabric, recipe.accelerator)
    model, transfer, spec = recipe.model, recipe.kv_transfer, recipe.role(worker.role)
    wide = spec.parallel.data > 1 or spec.parallel.nodes > 1
    module = (CPU_MODULE,) if recipe.accelerator == "cpu" else VLLM_SERVE if wide else (VLLM_MODULE,)
    argv = [
        *(sys.executable, "-m", *module),
        *("--model", model_path),
        *("--served-model-name", model.name),
        *("--host", api_address or worker.address),
        *("--port", str(worker.api_port)),
        *("--dtype", model.dtype),
        *("--max-model-len", str(model.max_len_tokens)),
        *("--block-size", str(transfer.block_size_tokens)),
        *("--tensor-parallel-size", str(spec.parallel.tensor)),
        *("--shutdown-timeout", str(recipe.drain_s)),
        "--disable-access-log-for-endpoints=/health,/metrics,/v1/models",
        "--disable-fastapi-docs",
    ]
    argv += _parallel(spec.parallel, worker)
    if model.revision:
        argv += ["--revision", model.revision]
    if model.s3:
        argv += ["--load-format", "runai_streamer"]
    if model.adapters:
        modules = [json.dumps({"name": a.name, "path": a.path or a.huggingface}) for a in model.adapters]
        argv += ["--enable-lora", "--lora-modules", *modules]
    env = {
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": str(KEEP_ALIVE_S),
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_API_KEY": "",  # one found in the container would shut the gateway out
        "PYTHONHASHSEED": "0",
    }
    if recipe.gateway.prefix_view == "exact":
        argv += _exact_prefix_view(recipe, worker, api_address or worker.address)
    if certificate:
        argv += ["--ssl-certfile", certificate[0], "--ssl-keyfile", certificate[1], "--enable-ssl-refresh"]
        env["WATCHFILES_FORCE_POLLING"] = "1"  # of a Secret's links inotify sees the first change, and no other
    if not (model.huggingface or hub_names(recipe)):
        env["HF_HUB_OFFLINE"] = "1"  # else a missing optional file is looked for on the hub, also of a folder
    if worker.role != "aggregated":
        argv += [
            "--kv-transfer-config",
            json.dumps(_kv_transfer_config(recipe, worker, decision, model_path, start_id)),
        ]
        env["VLLM_NIXL_SIDE_CHANNEL_HOST"] = worker.address
        env["VLLM_NIXL_SIDE_CHANNEL_PORT"] = str(worker.side_channel_port)
        if transfer.kv_layout:
            env["VLLM_KV_CACHE_LAYOUT"] = transfer.kv_layout
    if recipe.on_fabric(worker.role):
        env |= decision.environment
    if spec.kv_tiers and spec.kv_tiers.managed:
        # Unverified: no daemon to try it with, and the image has to carry LMCache.
        env["LMCACHE_REMOTE_URL"] = f"sagemaker-hyperpod://{node_address}:{MANAGED_TIER_PORT}"
    if recipe.accelerator == "cpu":
        # Engines share the cores of one machine here; binding would pin them all to the first ones.
        env["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
        env["OMP_NUM_THREADS"] = "1"
        if model.adapters and "max-loras" not in spec.engine:  # see Recipe: one more place than adapters
            argv += ["--max-loras", str(len(model.adapters) + 1)]
        if "kv-cache-memory-bytes" not in spec.engine:  # vLLM would take 92 % of the memory, for each engine
            argv += ["--kv-cache-memory-bytes", str(CPU_KV_CACHE_BYTES)]
    else:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, worker.gpu_ids))
    if not recipe.hybrid_kv_cache(worker.role) and "disable-hybrid-kv-cache-manager" not in spec.engine:
        argv.append("--disable-hybrid-kv-cache-manager")
    return Launch((*argv, *_options(spec.engine)), env, worker.cpu_ids)


def _parallel(parallel: Parallel, worker: Worker) -> list[str]:
    """Sizes beyond TP, and where the machines of one worker meet."""
    argv = ["--enable-expert-parallel"] if parallel.expert else []
    if parallel.pipeline > 1:
        argv += ["--pipeline-parallel-size", str(parallel.pipeline)]
    leader = worker.leader or worker.address
    if parallel.data > 1:
        argv += ["--data-parallel-size", str(parallel.data)]
        argv += ["--data-parallel-size-local", str(parallel.data // parallel.nodes)]
        argv += ["--data-parallel-address", leader, "--data-parallel-rpc-port", str(worker.data_parallel_port)]
        if worker.rank:
            argv += ["--data-parallel-start-rank", str(parallel.data // parallel.nodes * worker.rank)]
    elif parallel.nodes > 1:
        argv += ["--nnodes", str(parallel.nodes), "--node-rank", str(worker.rank), "--master-addr", leader]
        argv += ["--master-port", str(worker.data_parallel_port)]
    return [*argv, "--headless"] if worker.rank else argv


def _exact_prefix_view(recipe: Recipe, worker: Worker, address: str) -> list[str]:
    """Tell the gateway what the prefix cache holds, and how prompts become tokens.

    The sockets have no key and no TLS, and tell the tokens of prompts and the tenants' cache salts: whoever reaches
    their ports reads along. They listen where the API does, and nowhere else.
    """
    problems = []
    spec = recipe.role(worker.role)
    if spec.parallel.data > 1:
        problems.append(
            f"gateway.prefix_view: exact; {worker.role}.parallel.data is {spec.parallel.data}, and which rank's cache a"
            " request meets is the engine's own choice: use approximate"
        )
    if ipaddress.ip_address(address).version != 4:
        problems.append(
            f"gateway.prefix_view: exact; {worker.name} listens at {address}, and vLLM's KV events know IPv4 alone:"
            " use approximate"
        )
    if problems:
        raise RecipeError(recipe.name, problems)
    # /render, which tells a prompt's tokens; of what else this opens the gateway passes nothing on.
    argv = ["--enable-scale-out"]
    if KV_EVENTS in spec.engine:  # as llm-d's endpoint picker needs them; the gateway asks the engine where they are
        return argv
    at = f"tcp://[::ffff:{address}]"  # vLLM connects, and does not listen, where it sees neither * nor ::
    config = {
        "enable_kv_cache_events": True,
        "publisher": "zmq",
        "endpoint": f"{at}:{worker.kv_events_port}",
        "replay_endpoint": f"{at}:{worker.kv_replay_port}",
        "buffer_steps": REPLAY_BATCHES,
    }
    return [*argv, f"--{KV_EVENTS}", json.dumps(config)]


def hub_names(recipe: Recipe) -> list[str]:
    """Engine options that name something on a model hub, as in "decode.engine.tokenizer: org/model".

    vLLM's options are not modelled: a guess by the look of the value, and by a few names.
    """
    adapters = [f"model.adapters: {a.huggingface}" for a in recipe.model.adapters if a.huggingface]
    return adapters + [
        f"{role}.engine.{key}: {text}"
        for role, spec in recipe.roles().items()
        for key, text in _texts("", spec.engine)
        if not text.startswith(("/", "./", "../", "~"))
        and (_HUB_ID.fullmatch(text) or key.rpartition(".")[2] in ("tokenizer", "hf-config-path", "model"))
    ]


def _texts(key: str, value: object) -> Iterator[tuple[str, str]]:
    """Every text in an option, with its path; JSON in a text is opened."""
    if isinstance(value, str) and value.startswith("{"):
        try:
            value = json.loads(value)
        except ValueError:
            return
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _texts(f"{key}.{name}" if key else str(name), inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(key, inner)
    elif isinstance(value, str):
        yield key, value


def _kv_transfer_config(
    recipe: Recipe, worker: Worker, decision: fabric.Decision, model_path: str, start_id: str
) -> dict[str, object]:
    role = _KV_ROLE[worker.role]
    nixl: dict[str, object] = {
        "kv_connector": decision.connector,
        "kv_role": role,
        "kv_buffer_device": "cpu" if recipe.accelerator == "cpu" else "cuda",
        "kv_connector_extra_config": {
            "backends": [decision.backend],
            "kv_lease_duration": recipe.kv_transfer.lease_s,
        },
    }
    tiers = recipe.role(worker.role).kv_tiers
    if tiers:
        # NIXL first: what comes from another worker is taken before what lies on a tier.
        # A folder for each engine digest: blocks of another model under the same name would be wrong.
        digest = recipe.fingerprint(worker.role, model_path).identity.digest[:16]
        parallel = recipe.role(worker.role).parallel
        disk = f"{tiers.disk}/{digest}" if tiers.disk else None
        children = [nixl, _tiers(tiers, recipe, disk, parallel.data // parallel.nodes)]
        nixl = {
            "kv_connector": "MultiConnector",
            "kv_role": role,
            "kv_connector_extra_config": {"connectors": children},
        }
    return nixl | {
        "engine_id": f"{worker.name}-{start_id}",
        # `fail` keeps a broken pair visible: the gateway counts it and retries without the ticket.
        # It has to stand here: inside the extra config vLLM ignores it without a word.
        "kv_load_failure_policy": "fail",
    }


def _tiers(tiers: KVTiers, recipe: Recipe, disk: str | None, ranks: int) -> dict[str, object]:
    if tiers.managed:
        return {"kv_connector": "LMCacheConnectorV1", "kv_role": "kv_both"}
    if recipe.accelerator == "cpu":
        # vLLM's offloading connector needs a GPU. Its example connector writes whole prompts, and
        # ignores cache salts: good to try the layout with, and no more.
        return {
            "kv_connector": "ExampleConnector",
            "kv_role": "kv_both",
            "kv_connector_extra_config": {"shared_storage_path": disk},
        }
    # For each engine core, that is, for each data-parallel rank of this machine.
    extra: dict[str, object] = {"cpu_bytes_to_use": int((tiers.memory_gib or 0) * 2**30 / ranks)}
    if disk:
        extra |= {"spec_name": "TieringOffloadingSpec", "secondary_tiers": [{"type": "fs", "root_dir": disk}]}
    return {"kv_connector": "OffloadingConnector", "kv_role": "kv_both", "kv_connector_extra_config": extra}


def _options(engine: Mapping[str, EngineOption]) -> list[str]:
    """vLLM's own options as argv: true → --key, false → --no-key, a mapping → JSON, a list → values."""
    argv: list[str] = []
    for key, value in engine.items():
        flag = "--" + key
        match value:
            case True:
                argv.append(flag)
            case False:
                argv.append("--no-" + flag.removeprefix("--"))
            case dict():
                argv += [flag, json.dumps(value)]
            case list():
                argv += [flag, *map(str, value)]
            case _:
                argv += [flag, str(value)]
    return argv

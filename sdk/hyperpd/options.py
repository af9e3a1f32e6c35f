"""vLLM's own options, as recipes and settings pass them through: spelled one way, the owned ones refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

EngineOption = bool | int | float | str | list[Any] | dict[str, Any]

_TLS = "the settings tls-cert-file and tls-key-file"
# Options of vLLM that hyperpd derives itself. A recipe that sets one is refused: two sources for
# one value would disagree one day. So is a beginning of one (`block-siz`), which vLLM's parser
# completes, and a part of one (`kv-transfer-config.engine_id`).
OWNED_FLAGS: Mapping[str, str] = {
    "model": "model:",
    "served-model-name": "model.name",
    "max-model-len": "model.max_len_tokens",
    "dtype": "model.dtype",
    "revision": "model.revision",
    "tensor-parallel-size": "parallel.tensor",
    "block-size": "kv_transfer.block_size_tokens",
    "kv-transfer-config": "kv_transfer:",
    "shutdown-timeout": "drain_s",
    "host": "the placement",
    "port": "the placement",
    "api-key": "refused: gateways have keys (gateway.auth), engines are reached by gateways alone",
    "uds": "the placement",
    "config": "refused: options stand under engine:",
    "disable-access-log-for-endpoints": "what probes ask",
    "disable-fastapi-docs": "what may be reached",
    "pipeline-parallel-size": "parallel.pipeline",
    "data-parallel-size": "parallel.data",
    "data-parallel-size-local": "parallel.data and parallel.nodes",
    "data-parallel-start-rank": "parallel.data and parallel.nodes",
    "data-parallel-rank": "parallel.data and parallel.nodes",
    "data-parallel-address": "the placement",
    "data-parallel-rpc-port": "the placement",
    "data-parallel-external-lb": "parallel.data",
    "data-parallel-hybrid-lb": "parallel.data",
    "data-parallel-multi-port-external-lb": "parallel.data",
    "enable-expert-parallel": "parallel.expert",
    "nnodes": "parallel.nodes",
    "node-rank": "the placement",
    "master-addr": "the placement",
    "master-port": "the placement",
    "enable-lora": "model.adapters",
    "lora-modules": "model.adapters",
    "headless": "the placement",
    "ssl-keyfile": _TLS,
    "ssl-certfile": _TLS,
    "ssl-ca-certs": _TLS,
}


def engine_options(options: Mapping[str, EngineOption], shown: str = "") -> dict[str, EngineOption]:
    """Options as vLLM spells them, without leading dashes.

    Raises ValueError naming every one that hyperpd sets itself or that is given twice.
    """
    clashes = []
    spelled: dict[str, EngineOption] = {}
    for key, value in options.items():
        option, dot, part = key.removeprefix("--").partition(".")
        option = option.replace("_", "-")
        flag = option.removeprefix("no-")
        owned = next((name for name in OWNED_FLAGS if name.startswith(flag)), None)
        if owned:
            by = OWNED_FLAGS[owned]
            is_what = by if by.startswith("refused") else f"set by hyperpd from {by}; remove it here"
            clashes.append(f"{shown}{key} is {is_what}")
        elif option + dot + part in spelled:
            clashes.append(f"{shown}{key} is given twice; remove one")
        spelled[option + dot + part] = value
    if clashes:
        raise ValueError("; ".join(clashes))
    return spelled

"""The container's environment contract: every variable, its type, default, meaning and reader.

`Environment` is the one table. Each field NAME is the variable HYPERPD_NAME and the argument
`--name`. Scalars only: nothing needs JSON quoting. Other platforms' words are understood too:

    --name  >  HYPERPD_NAME  >  SM_VLLM_MODEL  >  HF_MODEL_ID  >  /opt/ml/model  >  the recipe

SM_VLLM_<OPTION> is vLLM's option, like what follows `--` in argv (which wins). SAGEMAKER_BIND_TO_PORT
is the port of the API. UCX_NET_DEVICES is net-devices, and LWS_WORKER_INDEX and LWS_LEADER_ADDRESS (set by
Kubernetes' LeaderWorkerSet) are node-rank and leader, where those are not given.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic.config import JsonDict

from hyperpd.placement import Machine
from hyperpd.recipe import Recipe

PREFIX = "HYPERPD_"
RuntimeRole = Literal["prefill", "decode", "aggregated", "gateway", "node"]

# Which roles read a setting; all do where nothing is said.
_GATEWAY: JsonDict = {"roles": "gateway"}
_WORKER: JsonDict = {"roles": "prefill, decode, aggregated"}
_KV: JsonDict = {"roles": "prefill, decode, aggregated, node"}


class Environment(BaseModel):
    """What one container is told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: RuntimeRole = Field(description="What this process is; node is all roles on one machine")
    recipe: str = Field(description="Recipe file, or the name of a shipped one")
    state_dir: str = Field("/tmp/hyperpd", description="Folder for logs and fleet.json")
    ordinal: int = Field(0, ge=0, description="Which worker of the role this is", json_schema_extra=_WORKER)
    node_rank: int = Field(
        0,
        ge=0,
        description="Which machine of a worker that spans several this is; 0 has the API",
        json_schema_extra=_WORKER,
    )
    local_index: int = Field(
        0,
        ge=0,
        description="How many workers of this recipe are before it on its machine: they have the first ports and GPUs",
        json_schema_extra=_WORKER,
    )
    leader: str = Field("", description="Address or name of that worker's machine 0", json_schema_extra=_WORKER)
    address: str = Field("127.0.0.1", description="IP address that peers connect to; never a hostname")
    api_address: str = Field(
        "",
        description="IP address that the API alone listens on, where it is not address; 0.0.0.0: every one",
        # Of a worker with both phases it is the API of its own front.
        json_schema_extra={"roles": "prefill, decode, gateway, aggregated, node"},
    )
    front: bool = Field(
        True,
        description="Serve the API here; false where a gateway elsewhere does, on ports that are that one's alone",
        json_schema_extra={"roles": "aggregated"},
    )
    node_address: str = Field(
        "", description="IP address of the node, for HyperPod's tiered storage on it", json_schema_extra=_WORKER
    )
    port_offset: int = Field(0, ge=0, le=50000, description="Added to every port: a second fleet on one machine")
    model: str = Field("", description="Model folder or id to serve instead of the recipe's")
    served_as: str = Field("", description="Name in the API instead of the recipe's; goes with model")
    instance_type: str = Field(
        "", description="As in ml.p5.48xlarge: how many EFA devices there have to be", json_schema_extra=_KV
    )
    efa_devices: int = Field(
        0, ge=0, description="EFA devices this container was given; 0: all of the machine", json_schema_extra=_KV
    )
    net_devices: str = Field(
        "",
        description="TCP: network devices, comma-separated; default: the one with address",
        json_schema_extra=_KV,
    )
    unknown_engine: bool = Field(
        False,
        description="Start an engine version that hyperpd has not been tried with",
        json_schema_extra={"roles": "prefill, decode, aggregated, node"},
    )
    prefill: str = Field(
        "",
        description="Comma-separated prefill workers: http(s)://ADDRESS:PORT, dns://NAME:PORT, file:///ENDPOINTS.json",
        json_schema_extra=_GATEWAY,
    )
    decode: str = Field(
        "",
        description="Comma-separated decode workers: http(s)://ADDRESS:PORT, dns://NAME:PORT, file:///ENDPOINTS.json",
        json_schema_extra=_GATEWAY,
    )
    aggregated: str = Field(
        "",
        description="Comma-separated aggregated workers: http(s)://ADDRESS:PORT, dns://NAME:PORT, file:///ENDPOINTS.json",
        json_schema_extra=_GATEWAY,
    )
    keys_file: str = Field(
        "",
        description="Key file, where the recipe says gateway.auth: keys",
        json_schema_extra={"roles": "gateway, aggregated, node"},
    )
    tls_cert_file: str = Field(
        "",
        description="PEM certificate and its chain: who comes, comes by TLS: to a gateway's two ports, or to a"
        " worker's API and admin port; what NIXL moves stays as it is, and needs the network policy",
    )
    tls_key_file: str = Field("", description="PEM key of that certificate, without a password")
    workers_ca_file: str = Field(
        "",
        description="PEM certificates that workers' are verified against, which are then reached by TLS alone",
        json_schema_extra=_GATEWAY,
    )

    @field_validator("prefill", "decode", "aggregated")
    @classmethod
    def _are_urls(cls, urls: str) -> str:
        for url in filter(None, urls.split(",")):
            at = urlsplit(url.strip())
            named = at.scheme == "dns" and at.path in ("", "/")  # every address of the name is a worker
            kept = at.scheme == "file" and not at.netloc and at.path.startswith("/")  # each of its role in the file
            if not kept and (not (at.scheme in ("http", "https") or named) or not at.hostname or not at.port):
                raise ValueError(
                    f"{url.strip()!r} is not like http://10.0.0.1:8100 or dns://prefill.default.svc:8100"
                    " or file:///shared/endpoints.json"
                )
        return urls

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if bool(self.tls_cert_file) != bool(self.tls_key_file):
            raise ValueError("tls-cert-file and tls-key-file: one of them is missing; give both, or neither")
        urls = [url.strip() for urls in (self.prefill, self.decode, self.aggregated) for url in urls.split(",")]
        if self.workers_ca_file and (plain := [url for url in urls if url.startswith("http://")]):
            raise ValueError(f"workers-ca-file: {', '.join(plain)} would be plain HTTP; write https://")
        if not self.workers_ca_file and (by_tls := [url for url in urls if url.startswith("https://")]):
            raise ValueError(f"workers-ca-file: missing; who signed the certificate of {', '.join(by_tls)}?")
        return self

    @field_validator("address", "api_address")
    @classmethod
    def _is_an_address(cls, address: str, asked: ValidationInfo) -> str:
        if address or asked.field_name == "address":
            ipaddress.ip_address(address)  # a hostname may mean another network on a peer, or nothing
        return address


def table() -> list[tuple[str, str, str, str, str]]:
    """Every setting as (name, type, default, who reads it, meaning), for --help and the README."""
    rows = []
    for name, setting in Environment.model_fields.items():
        extra = setting.json_schema_extra
        kind = "word" if name == "role" else getattr(setting.annotation, "__name__", "")
        default = "required" if setting.is_required() else str(setting.default)
        roles = str(extra["roles"]) if isinstance(extra, dict) else "all"
        rows.append((name.replace("_", "-"), kind, default, roles, str(setting.description)))
    return rows


def this_machine(address: str = "127.0.0.1") -> Machine:
    """The machine this process runs on, with the CPUs it may use, where the system tells (Linux)."""
    cpus = tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else None
    return Machine(address, cpus)


def model_path(recipe: Recipe) -> str:
    """What vLLM is given as --model: a folder, a Hugging Face id, an S3 prefix, or where the generated model lies."""
    source = recipe.model
    if source.generated:
        cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        return str(Path(cache) / "hyperpd" / "models" / source.generated)
    return str(Path(source.path).expanduser()) if source.path else str(source.huggingface or source.s3)

"""What the author writes: Recipe and its blocks; load; problems a person can act on.

Every block is strict: an unknown key is refused with the nearest known one, and all problems of
a file are reported at once, each with its path.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from hyperpd import fabric
from hyperpd.errors import RecipeError
from hyperpd.options import EngineOption, engine_options
from hyperpd.pairing import Fingerprint, Identity, compatible
from hyperpd.problems import problems

Role = Literal["prefill", "decode", "aggregated"]
Accelerator = Literal["cpu", "gpu"]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$")]
_PUSH = "NixlPushConnector"
# What S3 calls safe, but for quotes: a key stands in policies, programs and command lines, none of which it may change.
S3_KEY = r"[-A-Za-z0-9!_.()/]"
KVLayout = Literal["LBHNC", "LBNHC", "LHBNC", "BLHNC", "BLNHC", "BHLNC"]  # VLLM_KV_CACHE_LAYOUT of vLLM 0.32


class Block(BaseModel):
    """A strict, frozen part of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Adapter(Block):
    """A LoRA adapter. It is loaded by every worker of every role: one that only one role has would give wrong text."""

    name: str = Field(min_length=1, description="Name in the API: clients ask for it as the model")
    path: str | None = Field(None, description="Folder of the adapter, the same on every machine")
    huggingface: str | None = Field(None, description="Hugging Face id, as in org/adapter")

    @model_validator(mode="after")
    def _one_source(self) -> Adapter:
        if bool(self.path) == bool(self.huggingface):
            raise ValueError("give exactly one of path and huggingface")
        return self


class ModelSource(Block):
    """Which model; exactly one of `generated`, `path`, `huggingface` and `s3`."""

    generated: Literal["tiny-llama", "tiny-moe", "tiny-gpt-oss"] | None = Field(
        None, description="A model hyperpd generates, seeded"
    )
    path: str | None = Field(
        None, description="Folder of a Hugging Face model, the same on every machine: of the machine, or of `claim`"
    )
    claim: str | None = Field(
        None,
        description="Kubernetes: the PersistentVolumeClaim that has the folder `path`: FSx; EBS on one node",
    )
    huggingface: str | None = Field(None, description="Hugging Face id, as in org/model")
    s3: str | None = Field(
        None,
        pattern=rf"^s3://[a-z0-9][-a-z0-9.]+/{S3_KEY}+$",
        description="S3 prefix with the model's files, of letters, digits and !-_.()/; streamed (GPUs)",
    )
    revision: str | None = Field(None, description="Revision of the Hugging Face model")
    served_as: str | None = Field(None, description="Name in the API; default: the generated name, id or folder name")
    max_len_tokens: int = Field(4096, ge=16, description="Longest prompt plus output, in tokens")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("bfloat16", description="Activations and KV cache")
    adapters: tuple[Adapter, ...] = Field((), description="LoRA adapters, loaded by every worker of every role")

    @model_validator(mode="after")
    def _one_source(self) -> ModelSource:
        sources = ("generated", "path", "huggingface", "s3")
        given = [key for key in sources if getattr(self, key)]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(sources)} (found: {', '.join(given) or 'none'})")
        if self.revision and not self.huggingface:
            raise ValueError("revision goes with huggingface")
        if self.claim and not self.path:
            raise ValueError("claim goes with path, the folder it is mounted at")
        names = [self.name, *(adapter.name for adapter in self.adapters)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"adapters: {', '.join(twice)} is the name of more than one model; rename one")
        return self

    @property
    def name(self) -> str:
        """The name clients ask for."""
        folder = Path(str(self.path or self.s3)).name
        return self.served_as or self.generated or self.huggingface or folder


class Parallel(Block):
    """How one worker spreads over GPUs and machines."""

    tensor: int = Field(1, ge=1, description="Tensor-parallel size (TP)")
    pipeline: int = Field(1, ge=1, description="Pipeline-parallel size (PP)")
    data: int = Field(1, ge=1, description="Data-parallel size (DP): ranks behind one API, each TP x PP wide")
    expert: bool = Field(False, description="Spread a mixture's experts over all ranks (EP), not each over all")
    nodes: int = Field(1, ge=1, description="Machines of one worker, with as many ranks each")

    @property
    def size(self) -> int:
        """GPUs (or CPU processes) of one worker."""
        return self.tensor * self.pipeline * self.data

    @property
    def per_node(self) -> int:
        """GPUs (or CPU processes) of one worker on one machine."""
        return self.size // self.nodes

    @model_validator(mode="after")
    def _divides(self) -> Parallel:
        if self.size % self.nodes or (self.data > 1 and self.data % self.nodes):
            what = f"data ({self.data})" if self.data > 1 else f"tensor x pipeline ({self.size})"
            raise ValueError(f"nodes: {self.nodes} does not divide {what}")
        return self


class KVTiers(Block):
    """Where a prefill worker keeps KV blocks that leave the accelerator's memory."""

    memory_gib: float | None = Field(
        None, gt=0, description="Host memory of one worker on one machine; needed for `disk` with GPUs, none on a CPU"
    )
    disk: str | None = Field(None, description="Folder on a local disk; made if missing")
    managed: bool = Field(False, description="HyperPod's managed tiered storage, through LMCache; alone, with GPUs")

    @model_validator(mode="after")
    def _one_kind(self) -> KVTiers:
        if self.managed and (self.memory_gib or self.disk):
            raise ValueError("managed goes alone: it keeps blocks in memory and on disk by itself")
        if not (self.managed or self.memory_gib or self.disk):
            raise ValueError("give memory_gib, disk or managed")
        return self


class Autoscaling(Block):
    """Bounds within which a target scales the workers of a role."""

    min: int = Field(ge=1, description="Fewest workers")
    max: int = Field(ge=1, le=1024, description="Most workers")


class RoleSpec(Block):
    """The workers of one role."""

    replicas: int = Field(1, ge=1, le=1024, description="How many workers")
    autoscaling: Autoscaling | None = Field(None, description="How far the number of workers may move")
    instance_type: str | None = Field(None, description="HyperPod's name of the machine, as in ml.p5en.48xlarge")
    parallel: Parallel = Parallel()
    kv_tiers: KVTiers | None = Field(None, description="prefill: a prefix cache beyond the accelerator's memory")
    engine: dict[str, EngineOption] = Field({}, description="vLLM's own options, passed through by name")

    @field_validator("engine")
    @classmethod
    def _options(cls, engine: dict[str, EngineOption]) -> dict[str, EngineOption]:
        return engine_options(engine, "engine.")

    @field_validator("instance_type")
    @classmethod
    def _of_hyperpod(cls, name: str | None) -> str | None:
        if name and not re.fullmatch(r"ml\.\S+", name):
            raise ValueError("begins with ml., as in ml.p5en.48xlarge")
        return name

    @model_validator(mode="after")
    def _bounds(self) -> RoleSpec:
        if (bounds := self.autoscaling) and bounds.min > bounds.max:
            raise ValueError(f"autoscaling: min ({bounds.min}) is above max ({bounds.max})")
        if (bounds := self.autoscaling) and not bounds.min <= self.replicas <= bounds.max:
            raise ValueError(f"replicas: {self.replicas} is not within autoscaling {bounds.min} to {bounds.max}")
        return self


class KVTransfer(Block):
    """How the KV cache moves from prefill to decode. Connector and backend follow from the fabric; a block that
    cannot be loaded always fails in the engine, and the gateway retries and counts it."""

    fabric: Literal["efa", "local", "infiniband", "tcp"] | None = Field(
        None, description="What carries it; default: efa with GPUs, tcp on a CPU. local: all workers on one machine"
    )
    allow_tcp: bool = Field(False, description="Take TCP where the fabric cannot be used, instead of refusing")
    lease_s: int = Field(120, ge=10, le=3600, description="How long prefill keeps a finished prompt's blocks")
    block_size_tokens: Literal[16, 32, 64, 128] = Field(128, description="KV-cache block size, equal on both roles")
    kv_layout: KVLayout | None = Field(None, description="Order of the KV cache's axes; default: the connector's")


class Limits(Block):
    """What a gateway takes on, each gateway by itself. Above a limit a request is refused, and told what is allowed."""

    concurrent_requests: int | None = Field(None, ge=1, description="Above it: 429 with Retry-After; default: no limit")
    body_mib: float = Field(8, gt=0, le=1024, description="Largest request body; above it: 413")
    header_kib: int = Field(32, ge=4, le=1024, description="Largest request line and headers together; above it: 431")
    json_depth: int = Field(64, ge=8, le=256, description="Arrays and objects within one another in a body")
    prompt_tokens: int | None = Field(
        None, ge=1, description="Longest prompt: token ids counted, text taken as characters / 4; default: the model's"
    )
    output_tokens: int | None = Field(
        None, ge=1, description="Longest output, and what requests that name none get; default: what the model has left"
    )
    choices: int = Field(128, ge=1, le=1024, description="Answers of one request: its prompts times n")
    first_token_s: float = Field(600, gt=0, description="A stream's first event; above it: 504")
    idle_s: float = Field(
        600,
        gt=0,
        description="Silence of decode within a stream; above it the stream ends. Reasoning that is not shown, and text"
        " that a tool parser holds back, are silent",
    )
    total_s: float = Field(
        3600, gt=0, description="From a request's arrival to its last byte; above it: 504, or the end"
    )
    body_s: float = Field(60, gt=0, description="How long a body may take to arrive; above it: 408")
    stalled_s: float = Field(
        60, gt=0, description="A client that takes less than 64 KiB of what waits for it in this time is cut"
    )


class CalibrationSpec(Block):
    """What predictions start from, until requests teach better: hyperpd calibrate measures and writes it.

    What it leaves out has a rough value.
    """

    prefill_tokens_per_s: float | None = Field(None, gt=0, description="One prefill worker's, of prompts of one chunk")
    attention_s: float | None = Field(None, ge=0, description="What each prompt token costs more for each before it")
    step_s: float | None = Field(None, gt=0, description="One decode step of a batch usually seen, in seconds")
    pair_bytes_per_s: float | None = Field(None, gt=0, description="What a prefill → decode pair moves")
    handoff_s: float | None = Field(
        None, gt=0, description="What a remote prefill costs beside computing and moving, in seconds"
    )
    mean_output_tokens: float | None = Field(None, gt=0, description="Output of the usual request")
    kv_bytes_per_token: int | None = Field(None, gt=0, description="KV cache of one token, of all layers")


class GatewaySpec(Block):
    """The HTTP front."""

    policy: Literal["marginal_slo_cost", "least_tokens", "round_robin"] = Field(
        "marginal_slo_cost",
        description="Which worker: the one where the request costs it and those already there least, by the slo; the"
        " one with the fewest prompt tokens to compute; each in turn",
    )
    decider: Literal["predicted_cost", "uncached_tokens", "always", "never"] = Field(
        "predicted_cost",
        description="Which prompts go to a prefill worker: where that is predicted to cost less; from threshold_tokens"
        " on; all; none",
    )
    threshold_tokens: int = Field(
        0,
        ge=0,
        description="decider uncached_tokens: from so many tokens on, that decode has not cached, prefill is remote."
        " With predicted_cost the nearest thing for targets whose own router can set a threshold alone",
    )
    prefix_view: Literal["approximate", "exact"] = Field(
        "approximate",
        description="Which worker has which prefix cached: guessed from what was sent, or known from KV events",
    )
    calibration: CalibrationSpec | None = Field(
        None, description="Default: rough values by instance type, until requests have taught better"
    )
    replicas: int = Field(2, ge=1, le=64, description="Gateways, where a target runs them apart from the workers")
    auth: Literal["none", "keys"] = Field("none", description="keys: clients need a key of the gateway's key file")
    steering: Literal["refuse", "strip"] = Field(
        "refuse",
        description="Headers and fields of clients that would choose workers, transfers, sessions, priorities or cache"
        " keys: refused with 400, or dropped",
    )
    isolate_prefix_cache: bool = Field(
        False, description="No key's requests find the cached prompts of another's, nor see by time that there are any"
    )
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _together(self) -> GatewaySpec:
        found = []
        if self.isolate_prefix_cache and self.auth == "none":
            found.append("isolate_prefix_cache: goes with auth: keys, whose names say who is who")
        if self.decider == "uncached_tokens" and not self.threshold_tokens:
            found.append("threshold_tokens: decider: uncached_tokens needs it, as in 2048")
        if self.decider in ("always", "never") and self.threshold_tokens:
            found.append(f"threshold_tokens: decider: {self.decider} asks for none; remove one of the two")
        if found:
            raise ValueError("; ".join(found))
        return self


class SLO(Block):
    """What a request should meet, at the 95th percentile. Autoscaling follows it."""

    ttft_ms: float | None = Field(None, gt=0, description="Time to the first token")
    itl_ms: float | None = Field(None, gt=0, description="Time between two tokens")


class PlacementSpec(Block):
    """Where workers may run, beyond what the fabric demands."""

    same_zone: bool = Field(True, description="All workers in one availability zone; EFA does not leave it")


class Recipe(Block):
    """What to serve. It holds no account, subnet or role, so it can be shared."""

    version: Literal[1] = Field(description="Version of this format")
    name: Name = Field(description="Lower-case letters, digits, '-' and '.'")
    description: str = Field("", description="One line for people")
    accelerator: Accelerator = Field("gpu", description="What the engine runs on")
    image: str | None = Field(
        None, pattern=r"^[a-z0-9]\S*$", description="Container image; pinned by digest after hyperpd image mirror"
    )
    model: ModelSource
    prefill: RoleSpec | None = Field(None, description="Workers that compute the KV cache of prompts")
    decode: RoleSpec | None = Field(None, description="Workers that generate from it")
    aggregated: RoleSpec | None = Field(None, description="The baseline: one role instead of the two")
    kv_transfer: KVTransfer = KVTransfer()
    gateway: GatewaySpec = GatewaySpec()
    slo: SLO = SLO()
    placement: PlacementSpec = PlacementSpec()
    start_timeout_s: int = Field(900, ge=30, le=36000, description="How long a worker may load its model")
    drain_s: int = Field(30, ge=0, le=3600, description="How long a worker may finish requests after SIGTERM")

    @model_validator(mode="after")
    def _together(self) -> Recipe:
        """What blocks demand of each other; every problem at once."""
        if self.aggregated:
            found = ["give either prefill and decode, or aggregated; not both"] if self.prefill or self.decode else []
            if self.aggregated.kv_tiers:
                found.append("aggregated.kv_tiers goes with prefill; an aggregated worker takes vLLM's own options")
        elif self.prefill and self.decode:
            found = self._pair_problems(self.prefill, self.decode)
        else:
            missing = [role for role in ("prefill", "decode") if not getattr(self, role)]
            found = [f"no {' and no '.join(missing)} block; add it, or give one aggregated block instead"]
        if self.accelerator == "cpu":
            found += self._cpu_problems()
        if self.fabric == "efa" and not self.aggregated and not self.placement.same_zone:
            found.append("placement.same_zone: EFA does not leave an availability zone; remove it")
        if found:
            raise ValueError("; ".join(found))
        return self

    def _pair_problems(self, prefill: RoleSpec, decode: RoleSpec) -> list[str]:
        found = []
        if decode.kv_tiers:
            found.append("decode.kv_tiers goes with prefill: decode has no prompt to look up")
        if (tiers := prefill.kv_tiers) and not tiers.managed:
            needed = "memory_gib" if self.accelerator == "gpu" else "disk"
            if getattr(tiers, needed) is None or (self.accelerator == "cpu" and tiers.memory_gib):
                found.append(
                    f"prefill.kv_tiers: give {needed}{' alone' if needed == 'disk' else ''} on a {self.accelerator}"
                )
        if decode.parallel.pipeline > 1:
            found.append("decode.parallel.pipeline: vLLM refuses it where KV is received; use tensor or data")
        if prefill.parallel.pipeline > 1 and fabric.plan(self.fabric, self.accelerator).connector != _PUSH:
            found.append(f"prefill.parallel.pipeline: only {_PUSH} (kv_transfer.fabric: local) sends from stages")
        for name, parallel in (("prefill", prefill.parallel), ("decode", decode.parallel)):
            if parallel.nodes > 1 and parallel.data == 1:
                found.append(
                    f"{name}.parallel.nodes: a worker that exchanges KV spans machines by data only; raise data"
                )
        if broken := compatible(self.fingerprint("prefill"), self.fingerprint("decode")):
            found.append("prefill and decode cannot exchange KV: " + "; ".join(broken))
        return found

    def _cpu_problems(self) -> list[str]:
        found = []
        if self.fabric != "tcp":
            found.append(f"kv_transfer.fabric: {self.fabric} needs GPUs; on a CPU it is tcp")
        # vLLM 0.32's CPU kernels give requests of the base model the weights in the last place for adapters, where
        # they share a batch with an adapter's: that place has to stay empty.
        least = len(self.model.adapters) + 1
        for role, spec in self.roles().items():
            places = spec.engine.get("max-loras", least)
            if self.model.adapters and not (isinstance(places, int) and places >= least):
                found.append(
                    f"{role}.engine.max-loras: {places} gives wrong text on a CPU; give {least} or more, or none"
                )
        if self.model.s3:
            found.append("model.s3: the CPU engine cannot stream from S3; copy the files and give path")
        for name, spec in self.roles().items():
            if spec.parallel.expert:
                # vLLM 0.32, fused_moe/experts/cpu_moe.py: `apply` takes an expert_map and ignores it,
                # so the kernel reads beyond the experts a rank has.
                found.append(f"{name}.parallel.expert kills vLLM's CPU engine; remove it or use GPUs")
            if spec.kv_tiers and spec.kv_tiers.managed:
                found.append(f"{name}.kv_tiers.managed needs GPUs")
        return found

    def roles(self) -> dict[Role, RoleSpec]:
        """The roles this recipe has, in the order in which their workers start."""
        blocks: dict[Role, RoleSpec | None] = {
            "prefill": self.prefill,
            "decode": self.decode,
            "aggregated": self.aggregated,
        }
        return {role: spec for role, spec in blocks.items() if spec}

    def role(self, role: Role) -> RoleSpec:
        """The block of one role this recipe has."""
        return self.roles()[role]

    @property
    def fabric(self) -> str:
        """What carries the KV cache; one of fabric.FABRICS."""
        return self.kv_transfer.fabric or ("tcp" if self.accelerator == "cpu" else "efa")

    def on_fabric(self, role: Role) -> bool:
        """Whether workers of `role` talk over the fabric: to the other role, or among their own machines."""
        return role != "aggregated" or self.role(role).parallel.nodes > 1

    @property
    def layout(self) -> str:
        """The number of workers, as in 4P+1D or 2x for an aggregated one."""
        if self.prefill and self.decode:
            return f"{self.prefill.replicas}P+{self.decode.replicas}D"
        return f"{self.role('aggregated').replicas}x"

    def remote_from_tokens(self) -> int:
        """The threshold nearest to gateway.decider, for what can set nothing else: prompts from so many tokens on are
        prefilled remotely; 0: all. For never it is more than a prompt can have."""
        gateway = self.gateway
        return self.model.max_len_tokens if gateway.decider == "never" else gateway.threshold_tokens

    def hybrid_kv_cache(self, role: Role) -> bool:
        """Whether workers of `role` may keep several groups of KV cache (sliding window beside full attention).

        The disk tier of a CPU and LMCache cannot, and both workers of a pair must be alike.
        """
        tiers = self.prefill.kv_tiers if self.prefill else None
        tiered = tiers is not None and (self.accelerator == "cpu" or tiers.managed)
        return not (tiered or self.role(role).engine.get("disable-hybrid-kv-cache-manager", False))

    def fingerprint(self, role: Role, model_path: str = "", engine: str = "", kv_shape: str = "") -> Fingerprint:
        """What a worker of `role` says of itself, as far as the recipe decides it.

        model_path: what vLLM is given as --model; engine: the engine's distribution and version;
        kv_shape: Model.kv_shape.
        """
        spec, options = self.role(role), self.role(role).engine
        speculative = options.get("speculative-config")
        if isinstance(speculative, dict) and speculative.get("method") in ("ngram", "suffix"):
            speculative = None  # these read no hidden state, so nothing of theirs is transferred
        return Fingerprint(
            identity=Identity(
                engine=engine,
                model=model_path or self.model.name,
                revision=self.model.revision or "",
                dtype=self.model.dtype,
                kv_shape=kv_shape,
                connector=fabric.plan(self.fabric, self.accelerator).connector,
                kv_cache_dtype=str(options.get("kv-cache-dtype", "auto")),
                attention_backend=str(options.get("attention-backend", "auto")),
                hybrid_kv_cache=str(self.hybrid_kv_cache(role)),
                speculative=json.dumps(speculative, sort_keys=True) if speculative else "",
                adapters=", ".join(sorted(f"{a.name}={a.path or a.huggingface}" for a in self.model.adapters)),
            ),
            direction="producer" if role == "prefill" else "consumer",
            tensor=spec.parallel.tensor,
            block_size_tokens=self.kv_transfer.block_size_tokens,
            kv_layout=self.kv_transfer.kv_layout or "connector",
            lease_s=self.kv_transfer.lease_s,
        )


@dataclass(frozen=True, slots=True)
class RecipeFile:
    """A recipe with the file it came from; the digest says which file this is."""

    recipe: Recipe
    path: Path
    digest: str  # SHA-256 of the file, hex

    def serving(self, model: str | None, served_as: str = "") -> RecipeFile:
        """The same with another model: a folder (anything that begins like one, or exists) or a Hugging Face id.

        served_as: its name in the API, where that is not the recipe's `served_as`, the id or the folder's.
        """
        if not model:
            return self
        local = model.startswith((".", "/", "~")) or Path(model).is_dir()
        source = {"path": str(Path(model).expanduser().resolve())} if local else {"huggingface": model}
        none = dict.fromkeys(("generated", "path", "claim", "huggingface", "s3", "revision"))
        update = {**none, **source, **({"served_as": served_as} if served_as else {})}
        changed = self.recipe.model.model_copy(update=update)
        return replace(self, recipe=self.recipe.model_copy(update={"model": changed}))

    def with_options(self, options: Mapping[str, EngineOption]) -> RecipeFile:
        """The same with more vLLM options in every role; they win over the recipe's."""
        document = self.recipe.model_dump()
        for role in self.recipe.roles():
            document[role]["engine"] |= options
        return replace(self, recipe=parse(document, f"{self.path} with {', '.join(options)}")) if options else self


class _Loader(yaml.SafeLoader):
    """YAML whose mappings say each key once: of two, yaml would take the last and say nothing."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        written = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for key in written:
            if written.count(key) > 1:
                raise yaml.MarkedYAMLError(None, None, f"{key} is written twice in one block", node.start_mark)
        return super().construct_mapping(node, deep)


def shipped() -> list[str]:
    """Names of the recipes that come with hyperpd, sorted."""
    return sorted(path.name.removesuffix(".yaml") for path in _folder().iterdir() if path.name.endswith(".yaml"))


def load(recipe: str | Path) -> RecipeFile:
    """Load a recipe from a file, or a shipped one by name.

    Raises RecipeError with every problem of the file.
    """
    path = Path(recipe)
    if not path.is_file():
        path = _folder() / f"{recipe}.yaml"
    if not path.is_file():
        near = difflib.get_close_matches(str(recipe), shipped(), 1)
        alike = [name for name in shipped() if str(recipe) in name] or shipped()
        hint = f"did you mean {near[0]}?" if near else f"shipped recipes: {', '.join(alike)}"
        raise RecipeError(str(recipe), [f"no such file and no shipped recipe of this name; {hint}"])
    content = path.read_bytes()
    return RecipeFile(parse(read(content, str(path)), str(path)), path.resolve(), hashlib.sha256(content).hexdigest())


def read(content: bytes, where: str) -> Any:
    """The YAML that was written in `where`. Raises RecipeError where it is none, or says a key twice."""
    try:
        return yaml.load(content, _Loader)
    except yaml.YAMLError as error:
        raise RecipeError(where, [f"not YAML: {' '.join(str(error).split())}"]) from None


def schema() -> dict[str, Any]:
    """The JSON Schema of a recipe: what editors complete and explain by. It cannot say what blocks demand of each
    other; `load` does."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()}


def parse(document: Any, where: str) -> Recipe:
    """Validate what was written in `where`. Raises RecipeError with every problem, each with its path."""
    if not isinstance(document, dict):
        raise RecipeError(where, ["a recipe is a mapping that begins with `version: 1`"])
    try:
        return Recipe.model_validate(document)
    except ValidationError as error:
        raise RecipeError(where, problems(error, Recipe)) from None


def _folder() -> Path:
    packaged = Path(str(resources.files("hyperpd"))) / "recipes"
    return packaged if packaged.is_dir() else Path(__file__).resolve().parents[2] / "recipes"

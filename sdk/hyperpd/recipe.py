"""What the author writes: Recipe and its blocks; load; problems a person can act on.

Every block is strict: an unknown key is refused with the nearest known one, and all problems of
a file are reported at once, each with its path.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from hyperpd import fabric
from hyperpd.errors import RecipeError
from hyperpd.pairing import Fingerprint, Identity, compatible

Role = Literal["prefill", "decode", "aggregated"]
Accelerator = Literal["cpu", "gpu"]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$")]
KVLayout = Literal["LBHNC", "LBNHC", "LHBNC", "BLHNC", "BLNHC", "BHLNC"]  # VLLM_KV_CACHE_LAYOUT of vLLM 0.32
EngineOption = bool | int | float | str | list[Any] | dict[str, Any]

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
    "api-key": "the gateway",
    "uds": "the placement",
    "config": "engine:",
    "disable-access-log-for-endpoints": "hyperpd",
    "disable-fastapi-docs": "hyperpd",
    "pipeline-parallel-size": "parallel: (tensor only, so far)",
    "data-parallel-size": "parallel: (tensor only, so far)",
    "data-parallel-size-local": "parallel: (tensor only, so far)",
    "data-parallel-address": "parallel: (tensor only, so far)",
    "nnodes": "the placement (a worker is whole on one machine)",
    "node-rank": "the placement (a worker is whole on one machine)",
    "api-server-count": "hyperpd",
    "headless": "hyperpd",
    "ssl-keyfile": "the gateway",
    "ssl-certfile": "the gateway",
    "ssl-ca-certs": "the gateway",
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
            clashes.append(f"{shown}{key} is set by hyperpd from {OWNED_FLAGS[owned]}; remove it here")
        elif option + dot + part in spelled:
            clashes.append(f"{shown}{key} is given twice; remove one")
        spelled[option + dot + part] = value
    if clashes:
        raise ValueError("; ".join(clashes))
    return spelled


class Block(BaseModel):
    """A strict, frozen part of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSource(Block):
    """Which model; exactly one of `generated`, `path` and `huggingface`."""

    generated: Literal["tiny-llama", "tiny-moe", "tiny-gpt-oss"] | None = Field(
        None, description="A model hyperpd generates, seeded"
    )
    path: str | None = Field(None, description="Folder of a Hugging Face model, the same on every machine")
    huggingface: str | None = Field(None, description="Hugging Face id, as in org/model")
    revision: str | None = Field(None, description="Revision of the Hugging Face model")
    served_as: str | None = Field(None, description="Name in the API; default: the generated name, id or folder name")
    max_len_tokens: int = Field(4096, ge=16, description="Longest prompt plus output, in tokens")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("bfloat16", description="Weights and KV cache")

    @model_validator(mode="after")
    def _one_source(self) -> ModelSource:
        given = [key for key in ("generated", "path", "huggingface") if getattr(self, key)]
        if len(given) != 1:
            raise ValueError(f"give exactly one of generated, path, huggingface (found: {', '.join(given) or 'none'})")
        if self.revision and not self.huggingface:
            raise ValueError("revision goes with huggingface")
        return self

    @property
    def name(self) -> str:
        """The name clients ask for."""
        return self.served_as or self.generated or self.huggingface or Path(str(self.path)).name


class Parallel(Block):
    """How one worker spreads over GPUs."""

    tensor: int = Field(1, ge=1, description="Tensor-parallel size (TP)")

    @property
    def size(self) -> int:
        """GPUs (or CPU processes) of one worker."""
        return self.tensor


class KVTiers(Block):
    """Where a prefill worker keeps KV blocks that leave the accelerator's memory."""

    memory_gib: float | None = Field(None, gt=0, description="Host memory; needed with GPUs, not used on a CPU")
    disk: str | None = Field(None, description="Folder on a local disk; made if missing")


class RoleSpec(Block):
    """The workers of one role."""

    replicas: int = Field(1, ge=1, le=1024, description="How many workers")
    parallel: Parallel = Parallel()
    kv_tiers: KVTiers | None = Field(None, description="prefill: a prefix cache beyond the accelerator's memory")
    engine: dict[str, EngineOption] = Field({}, description="vLLM's own options, passed through by name")

    @field_validator("engine")
    @classmethod
    def _options(cls, engine: dict[str, EngineOption]) -> dict[str, EngineOption]:
        return engine_options(engine, "engine.")


class KVTransfer(Block):
    """How the KV cache moves from prefill to decode."""

    fabric: Literal["efa", "local", "infiniband", "tcp"] | None = Field(
        None, description="What carries it; default: efa with GPUs, tcp on a CPU"
    )
    allow_tcp: bool = Field(False, description="Take TCP where the fabric cannot be used, instead of refusing")
    lease_s: int = Field(120, ge=10, le=3600, description="How long prefill keeps a finished prompt's blocks")
    block_size_tokens: Literal[16, 32, 64, 128] = Field(128, description="KV-cache block size, equal on both roles")
    kv_layout: KVLayout | None = Field(None, description="Order of the KV cache's axes; default: the connector's")


class GatewaySpec(Block):
    """The HTTP front."""

    policy: Literal["round_robin"] = Field("round_robin", description="How a worker is chosen")


class Recipe(Block):
    """What to serve. It holds no account, subnet or bucket, so it can be shared."""

    version: Literal[1] = Field(description="Version of this format")
    name: Name = Field(description="Lower-case letters, digits, '-' and '.'")
    description: str = ""
    accelerator: Accelerator = Field("gpu", description="What the engine runs on")
    image: str | None = Field(
        None, pattern=r"^[a-z0-9]\S*$", description="Container image; pinned by digest after hyperpd image mirror"
    )
    model: ModelSource
    prefill: RoleSpec | None = None
    decode: RoleSpec | None = None
    aggregated: RoleSpec | None = Field(None, description="The baseline: one role instead of the two")
    kv_transfer: KVTransfer = KVTransfer()
    gateway: GatewaySpec = GatewaySpec()
    drain_s: int = Field(30, ge=0, le=3600, description="How long a worker may finish requests after SIGTERM")

    @model_validator(mode="after")
    def _roles(self) -> Recipe:
        if self.aggregated:
            if self.prefill or self.decode:
                raise ValueError("give either prefill and decode, or aggregated; not both")
        elif not (self.prefill and self.decode):
            missing = [role for role in ("prefill", "decode") if not getattr(self, role)]
            raise ValueError(f"no {' and no '.join(missing)} block; add it, or give one aggregated block instead")
        if self.aggregated and self.aggregated.kv_tiers:
            raise ValueError("kv_tiers goes with prefill; an aggregated worker takes vLLM's own options")
        if self.decode and self.decode.kv_tiers:
            raise ValueError("kv_tiers goes with prefill: decode has no prompt to look up")
        elif self.prefill and self.prefill.kv_tiers:
            tiers, needed = self.prefill.kv_tiers, "memory_gib" if self.accelerator == "gpu" else "disk"
            if getattr(tiers, needed) is None or (self.accelerator == "cpu" and tiers.memory_gib):
                raise ValueError(
                    f"kv_tiers: give {needed}{' alone' if needed == 'disk' else ''} on a {self.accelerator}"
                )
        if (
            self.prefill
            and self.decode
            and (broken := compatible(self.fingerprint("prefill"), self.fingerprint("decode")))
        ):
            raise ValueError("prefill and decode cannot exchange KV: " + "; ".join(broken))
        if self.accelerator == "cpu" and self.fabric != "tcp":
            raise ValueError(f"kv_transfer.fabric: {self.fabric} needs GPUs; on a CPU it is tcp")
        if self.accelerator == "cpu":
            expert_parallel = [name for name, spec in self.roles().items() if spec.engine.get("enable-expert-parallel")]
            if expert_parallel:
                # vLLM 0.32, fused_moe/experts/cpu_moe.py: `apply` takes an expert_map and ignores it,
                # so the kernel reads beyond the experts a rank has.
                names = " and ".join(expert_parallel)
                raise ValueError(f"{names}: enable-expert-parallel kills vLLM's CPU engine; remove it or use GPUs")
        return self

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

    def hybrid_kv_cache(self, role: Role) -> bool:
        """Whether workers of `role` may keep several groups of KV cache (sliding window beside full attention).

        The disk tier of a CPU cannot, and both workers of a pair must be alike.
        """
        tiered = self.accelerator == "cpu" and self.prefill is not None and self.prefill.kv_tiers is not None
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

    def serving(self, model: str | None) -> RecipeFile:
        """The same with another model: a folder (anything that begins like one, or exists) or a Hugging Face id."""
        if not model:
            return self
        local = model.startswith((".", "/", "~")) or Path(model).is_dir()
        source = {"path": str(Path(model).expanduser().resolve())} if local else {"huggingface": model}
        update = {"generated": None, "path": None, "huggingface": None, "revision": None, **source}
        changed = self.recipe.model.model_copy(update=update)
        return replace(self, recipe=self.recipe.model_copy(update={"model": changed}))

    def with_options(self, options: Mapping[str, EngineOption]) -> RecipeFile:
        """The same with more vLLM options in every role; they win over the recipe's."""
        document = self.recipe.model_dump()
        for role in self.recipe.roles():
            document[role]["engine"] |= options
        return replace(self, recipe=parse(document, f"{self.path} with {', '.join(options)}")) if options else self


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
        hint = f"did you mean {near[0]}?" if near else f"shipped recipes: {', '.join(shipped())}"
        raise RecipeError(str(recipe), [f"no such file and no shipped recipe of this name; {hint}"])
    content = path.read_bytes()
    try:
        document = yaml.safe_load(content)
    except yaml.YAMLError as error:
        raise RecipeError(str(path), [f"not YAML: {' '.join(str(error).split())}"]) from None
    return RecipeFile(parse(document, str(path)), path.resolve(), hashlib.sha256(content).hexdigest())


def parse(document: Any, where: str) -> Recipe:
    """Validate what was written in `where`. Raises RecipeError with every problem, each with its path."""
    if not isinstance(document, dict):
        raise RecipeError(where, ["a recipe is a mapping that begins with `version: 1`"])
    try:
        return Recipe.model_validate(document)
    except ValidationError as error:
        raise RecipeError(where, problems(error, Recipe)) from None


def problems(error: ValidationError, root: type[BaseModel]) -> list[str]:
    """pydantic's findings as sentences: "path: what; what to try"."""
    found = []
    for item in error.errors(include_url=False):
        location = item["loc"]
        path = ".".join(str(part) for part in location) or "(whole file)"
        if item["type"] == "extra_forbidden":
            found.append(f"{path}: unknown key{_nearest(str(location[-1]), _known_keys(root, location[:-1]))}")
        elif item["type"] == "missing":
            found.append(f"{path}: missing; add it")
        else:
            value = "" if isinstance(item["input"], dict | BaseModel) else f" (found {item['input']!r})"
            found.append(f"{path}: {item['msg'].removeprefix('Value error, ')}{value}")
    return found


def _known_keys(root: type[BaseModel], location: Iterable[int | str]) -> list[str]:
    block: type[BaseModel] = root
    for part in location:
        field = block.model_fields.get(str(part))
        if field is None:
            return []
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
        inner = [kind for kind in candidates if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not inner:
            return []
        block = inner[0]
    return list(block.model_fields)


def _nearest(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, 1)
    return f"; did you mean {near[0]}?" if near else f"; known here: {', '.join(known)}" if known else ""


def _folder() -> Path:
    packaged = Path(str(resources.files("hyperpd"))) / "recipes"
    return packaged if packaged.is_dir() else Path(__file__).resolve().parents[2] / "recipes"

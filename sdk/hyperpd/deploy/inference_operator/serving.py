"""Engines: where their model comes from, vLLM's arguments, variables, and what they ask of machines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile
from urllib.parse import urlsplit

from hyperpd.deploy.inference_operator.endpoint import MODEL_FOLDER, VLLM_PORT, VOLUME, Endpoint
from hyperpd.deploy.kubernetes import machines, storage
from hyperpd.deploy.kubernetes.fleet import Object
from hyperpd.engine import launch
from hyperpd.placement import Machine, place_one
from hyperpd.recipe import Role

# The same for all roles: in worker.args, which a role's own args are merged into.
_SHARED = ("--model", "--served-model-name", "--dtype", "--max-model-len")
# What launch() says and this serving image is not told, each with why.
NOT_PASSED = {
    "--kv-transfer-config": "the operator wires LMCache and NIXL",
    "--host": "the container's own",
    "--port": "the container's own",
    "--block-size": "goes with hyperpd's connector; LMCache moves chunks of its own",
    "--shutdown-timeout": "newer than the image's vLLM; nothing here gives a pod the time",
    "--disable-access-log-for-endpoints": "newer than the image's vLLM",
    "--disable-fastapi-docs": "hyperpd's own",
    "--kv-events-config": "told to hyperpd's gateway alone, which is not here",
    "--enable-scale-out": "for hyperpd's gateway alone, which is not here",
    "--data-parallel-size-local": "one machine",
    "--data-parallel-address": "one machine",
    "--data-parallel-rpc-port": "one machine",
    "--revision": "modelSourceConfig has it: files come from a folder",
    "--load-format": "files come from a folder, not from S3",
}
_MEMORY = ("gpu-memory-utilization", "kv-cache-memory-bytes")
PD_MEMORY = "0.75"  # AWS's page on DPD: what is left is for PD_BUFFER_SIZE and activations
PD_BUFFER_GIB = 8  # as there


def source(endpoint: Endpoint) -> tuple[Object, Object]:
    """Where the files come from: (fields of the spec, modelVolumeMount)."""
    model, options = endpoint.recipe.model, endpoint.options
    if endpoint.ours:
        return endpoint.recipe_volume()
    mount = {"name": VOLUME, "mountPath": MODEL_FOLDER}
    if model.huggingface:
        token = {"name": options.hf_token_secret, "key": storage.TOKEN_KEY}
        hub = {
            "modelId": model.huggingface,
            **({"commitSHA": model.revision} if model.revision else {}),
            **({"tokenSecretRef": token} if options.hf_token_secret else {}),
        }
        return {"modelSourceConfig": {"modelSourceType": "huggingface", "huggingFaceModel": hub}}, mount
    if model.s3:
        at = urlsplit(model.s3)
        bucket = {"bucketName": at.netloc, "region": options.region}
        where = {"modelSourceType": "s3", "modelLocation": at.path.strip("/"), "s3Storage": bucket}
        return {"modelSourceConfig": where}, mount
    volume: Object = {"name": VOLUME, "hostPath": {"path": model.path, "type": "Directory"}}
    if model.claim:
        volume = {"name": VOLUME, "persistentVolumeClaim": {"claimName": model.claim, "readOnly": True}}
        mount["mountPath"] = storage.claim_folder(endpoint.fleet)
    kind = {"modelSourceType": "kubernetesVolume"}
    return {"modelSourceConfig": kind, "kubernetes": {"volumes": [volume]}}, mount


def model_folder(endpoint: Endpoint) -> str:
    """What vLLM is given as --model."""
    return str(endpoint.recipe.model.path) if endpoint.recipe.model.claim else MODEL_FOLDER


def shared_arguments(endpoint: Endpoint) -> list[str]:
    """vLLM's arguments that hold for every role."""
    role = next(iter(endpoint.recipe.roles()))
    said = [word for option in _options(endpoint, role) if option[0] in _SHARED for word in option]
    return [*said, "--host", "0.0.0.0", "--port", str(VLLM_PORT)]


def arguments(endpoint: Endpoint, role: Role) -> list[str]:
    """vLLM's arguments of a role, beyond the shared ones."""
    said = [word for option in _options(endpoint, role) if option[0] not in _SHARED for word in option]
    if endpoint.form == "pair" and not any(key in endpoint.recipe.role(role).engine for key in _MEMORY):
        said += ["--gpu-memory-utilization", PD_MEMORY]
    return said


def _options(endpoint: Endpoint, role: Role) -> Iterator[Sequence[str]]:
    """What engine.launch() says of a worker, option by option, each with its values."""
    (worker,) = place_one(endpoint.recipe, role, 0, Machine()).workers
    argv = launch(endpoint.recipe, worker, model_path=model_folder(endpoint)).argv
    words = list(argv[argv.index("--model") :])
    own = {f"--{key}" for key in endpoint.recipe.role(role).engine}  # the author's: passed, whatever they are
    while words:
        option = words.pop(0)
        values = list(takewhile(lambda word: not word.startswith("--"), words))
        del words[: len(values)]
        if option in own or option.partition("=")[0] not in NOT_PASSED:
            yield (option, *values)


def environment(endpoint: Endpoint) -> list[Object]:
    """Variables, the same for every role."""
    buffer = (endpoint.options.pd_buffer_gib or PD_BUFFER_GIB) << 30
    lmcache = {"PD_BUFFER_SIZE": str(buffer), "LMCACHE_SAVE_DECODE_CACHE": "False"}
    values = {
        "PYTHONHASHSEED": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HOME": "/tmp/hf_home",
        **(lmcache if endpoint.form == "pair" else {}),
    }
    return [{"name": name, "value": value} for name, value in values.items()]


def token(endpoint: Endpoint) -> list[Object]:
    """The Hugging Face token, where hyperpd's own image loads the model."""
    if not (secret := endpoint.options.hf_token_secret):
        return []
    return [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": secret, "key": storage.TOKEN_KEY}}}]


def resources(endpoint: Endpoint, role: Role) -> Object:
    """The share of a machine that goes with the GPUs. No EFA devices: AWS's page asks for none in this object."""
    asked = machines.share(endpoint.fleet, role).resources()
    devices = (machines.EFA, machines.HUGEPAGES)
    return {kind: {key: str(n) for key, n in amounts.items() if key not in devices} for kind, amounts in asked.items()}

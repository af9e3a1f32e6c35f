"""What pods mount: the recipe, models, caches, secrets."""

from __future__ import annotations

import math
from pathlib import PurePosixPath

from hyperpd import models
from hyperpd.deploy.kubernetes import certificates
from hyperpd.deploy.kubernetes.fleet import RECIPE_FOLDER, Component, Fleet, Object
from hyperpd.recipe import Role

KEYS_FOLDER, KEYS_KEY = "/etc/hyperpd-keys", "keys.json"
METRICS_KEY = "metrics-key"  # an operator's key, which no pod of ours mounts
TOKEN_KEY = "token"
ROOT_GIB = 83  # 90 GB: what is left to pods of HyperPod's root volume of 100 GB
_KEPT_GIB = 10  # compiled code, logs, adapters of one pod: an estimate
TMP = "/tmp"  # HOME, caches and state of the image; everything else is read-only
# Folders that a volume would hide from the image.
_SYSTEM = {
    "bin",
    "boot",
    "dev",
    "etc",
    "lib",
    "lib64",
    "opt",
    "proc",
    "root",
    "run",
    "sbin",
    "sys",
    "tmp",
    "usr",
    "var",
}

Mount = tuple[Object, Object]  # a volume, and where a container sees it


def of_gateway(fleet: Fleet) -> list[Mount]:
    return [_recipe(fleet), _own("tmp", TMP), *_keys(fleet), *_certificates(fleet, "gateway")]


def of_engines(fleet: Fleet, component: Component, roles: tuple[Role, ...], shared_memory_gib: int) -> list[Mount]:
    """What a pod with workers of `roles` mounts."""
    memory = {"medium": "Memory", "sizeLimit": f"{shared_memory_gib}Gi"}
    mounts = [_recipe(fleet), _own("tmp", TMP, _tmp(fleet, roles)), _own("shared-memory", "/dev/shm", memory)]
    for index, path in enumerate(_model_folders(fleet)):
        mounts.append(_machine(f"model-{index}", path, path, read_only=True))
    if claim := fleet.recipe.model.claim:
        source = {"claimName": claim, "readOnly": True}
        mount = {"mountPath": claim_folder(fleet), "readOnly": True}
        mounts.append(_mount("model-claim", {"persistentVolumeClaim": source}, mount))
    if folder := fleet.options.cache_folder:
        mounts.append(_machine("cache", folder, f"{TMP}/cache"))
    for index, path in enumerate(_tier_folders(fleet, roles)):
        mounts.append(_machine(f"kv-tier-{index}", path, path))
    # A worker that does both phases has a front of its own, which asks for the keys as any gateway.
    mounts += _keys(fleet) if component in ("aggregated", "node") else []
    return [*mounts, *_certificates(fleet, component)]


def downloads_gib(fleet: Fleet) -> int:
    """What one pod puts on its machine's root volume, where it downloads for itself.

    0 where it does not: a folder of the machine has it, or nothing comes from the hub.
    """
    if fleet.options.cache_folder or not fleet.from_hub:
        return 0
    known = models.find(fleet.recipe.model.huggingface)
    return math.ceil(known.weights_bytes / 2**30 if known else 0) + _KEPT_GIB


def downloads_note(fleet: Fleet) -> str:
    """What the request of `downloads_gib` is for; empty without one."""
    if not downloads_gib(fleet):
        return ""
    rest = f"{_KEPT_GIB} GiB for compiled code and logs"
    if models.find(fleet.recipe.model.huggingface):
        return f"ephemeral-storage: the model, which each pod downloads for itself, and {rest}."
    return (
        f"ephemeral-storage: {rest}. How much each pod downloads for itself is not known here: a large model needs the"
        " option cache_folder."
    )


def _tmp(fleet: Fleet, roles: tuple[Role, ...]) -> Object:
    """Its limit, where what goes there is known: the download, and no tier."""
    tiers = [tiers for role in roles if (tiers := fleet.recipe.role(role).kv_tiers) and tiers.disk]
    known = models.find(fleet.recipe.model.huggingface) and len(tiers) == len(_tier_folders(fleet, roles))
    return {"sizeLimit": f"{gib}Gi"} if known and (gib := downloads_gib(fleet)) else {}


def claim_folder(fleet: Fleet) -> str:
    """Where the claim is mounted: at the first folder of the path, the rest of which is a folder in it."""
    return "/" + PurePosixPath(str(fleet.recipe.model.path)).parts[1]


def hidden(folder: str) -> bool:
    """Whether a volume mounted at `folder` hides what the image has."""
    return folder.strip("/") in _SYSTEM


def paths(fleet: Fleet) -> dict[str, str]:
    """Every folder that the recipe names, by field."""
    model = fleet.recipe.model
    found = {f"model.adapters.{index}.path": adapter.path for index, adapter in enumerate(model.adapters)}
    found |= {"model.path": model.path}
    found |= {f"{role}.kv_tiers.disk": s.kv_tiers.disk for role, s in fleet.recipe.roles().items() if s.kv_tiers}
    return {field: path for field, path in found.items() if path}


def machine_folders(fleet: Fleet) -> list[str]:
    """Folders of the machine that engines see."""
    cache = [fleet.options.cache_folder] if fleet.options.cache_folder else []
    return [*_model_folders(fleet), *cache, *_tier_folders(fleet, tuple(fleet.recipe.roles()))]


def _model_folders(fleet: Fleet) -> list[str]:
    """Of the machine, the same on every one; what lies in the claim is no folder of a machine."""
    model = fleet.recipe.model
    given = [model.path, *(adapter.path for adapter in model.adapters)]
    claimed = claim_folder(fleet) + "/" if model.claim else None
    found = dict.fromkeys(path for path in given if path and not (claimed and f"{path}/".startswith(claimed)))
    return [path for path in found if not any(path.startswith(f"{other}/") for other in found)]


def _tier_folders(fleet: Fleet, roles: tuple[Role, ...]) -> list[str]:
    """Folders of a machine's disk; one below /tmp is the pod's own."""
    tiers = [fleet.recipe.role(role).kv_tiers for role in roles]
    return [t.disk for t in tiers if t and t.disk and not f"{t.disk}/".startswith(f"{TMP}/")]


def _recipe(fleet: Fleet) -> Mount:
    return _mount(
        "recipe", {"configMap": {"name": fleet.configuration}}, {"mountPath": RECIPE_FOLDER, "readOnly": True}
    )


def _keys(fleet: Fleet) -> list[Mount]:
    if fleet.recipe.gateway.auth != "keys":
        return []
    source = {"secretName": fleet.options.keys_secret, "items": [{"key": KEYS_KEY, "path": KEYS_KEY}]}
    return [_mount("keys", {"secret": source}, {"mountPath": KEYS_FOLDER, "readOnly": True})]


def _certificates(fleet: Fleet, component: Component) -> list[Mount]:
    mounts = []
    for volume, secret, keys, folder in certificates.files(fleet, component):
        source = {"secretName": secret, "items": [{"key": key, "path": key} for key in keys]}
        mounts.append(_mount(volume, {"secret": source}, {"mountPath": folder, "readOnly": True}))
    return mounts


def _own(name: str, path: str, source: Object | None = None) -> Mount:
    return _mount(name, {"emptyDir": source or {}}, {"mountPath": path})


def _machine(name: str, path: str, at: str, *, read_only: bool = False) -> Mount:
    # Directory, never DirectoryOrCreate: what the kubelet creates belongs to root, and engines are not root.
    mount = {"mountPath": at, **({"readOnly": True} if read_only else {})}
    return _mount(name, {"hostPath": {"path": path, "type": "Directory"}}, mount)


def _mount(name: str, source: Object, mount: Object) -> Mount:
    return {"name": name, **source}, {"name": name, **mount}

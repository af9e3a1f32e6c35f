"""The pods of workers: variables, ports, probes, and what they ask for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

from hyperpd.deploy.kubernetes import access, certificates, lifetimes, machines, queue, sidecar, storage
from hyperpd.deploy.kubernetes.fleet import DIGEST, PORTS, RECIPE_FOLDER, RECIPE_KEY, Component, Fleet, Object
from hyperpd.recipe import Role

ADMIN, API, SIDE_CHANNEL = "admin", "api", "side-channel"  # names of ports
GATEWAY_API, GATEWAY_ADMIN = "http", "gateway-admin"

_FOLDERS = "Folders of the machine have to be there: what the kubelet makes belongs to root, and engines are not root."

Notes = dict[str, str]


def template(
    fleet: Fleet, component: Component, roles: tuple[Role, ...], *, leads: bool = True
) -> tuple[Object, Notes]:
    """The pod of a worker, or of all, with notes on it."""
    everything = component == "node"
    share = machines.share_of_all(fleet) if everything else machines.share(fleet, roles[0])
    share = replace(share, disk_gib=storage.downloads_gib(fleet))
    security, why_security = access.container_security(fleet, "engines")
    where, why_where = machines.scheduling(fleet, component, roles[0])
    mounts = storage.of_engines(fleet, component, roles, _shared_memory_gib(fleet, component, roles, share))
    probes, why_probes = _probes(fleet, component, leads)
    routing, why_routing = sidecar.container(fleet) if sidecar.beside(fleet, component, leads) else ({}, "")
    container = {
        "name": component,
        "image": fleet.image,
        "env": [*_environment(fleet, component, roles), *sidecar.environment(fleet, component, leads)],
        "ports": _ports(fleet, component, leads),
        **probes,
        "resources": share.resources(),
        "securityContext": security,
        "volumeMounts": [mount for _, mount in mounts],
    }
    spec = {
        "serviceAccountName": "engines",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": lifetimes.ending_s(fleet.recipe, component, leads=leads),
        **where,
        "securityContext": access.pod_security(fleet, "engines"),
        **({"initContainers": [routing]} if routing else {}),
        "containers": [container],
        "volumes": [volume for volume, _ in mounts],
    }
    meta = {
        "labels": fleet.labels(component) | queue.pod_labels(fleet) | sidecar.labels(fleet, component, leads),
        "annotations": {
            DIGEST: fleet.file.digest,
            **queue.pod_annotations(fleet),
            **sidecar.annotation(fleet, component, leads),
        },
    }
    notes = {
        "metadata.annotations": "A changed recipe starts new pods.",
        "spec.enableServiceLinks": "A Service's variables would be taken for settings.",
        "spec.terminationGracePeriodSeconds": lifetimes.ending_note(component),
        **below("spec", why_where),
        **below("spec", {"initContainers": why_routing}),
        **below("spec.containers.0", why_probes),
        "spec.containers.0.resources": " ".join(filter(None, (share.note, storage.downloads_note(fleet)))),
        "spec.containers.0.securityContext": why_security,
        "spec.volumes": _FOLDERS if any("hostPath" in volume for volume, _ in mounts) else "",
    }
    return {"metadata": meta, "spec": spec}, notes


def _shared_memory_gib(fleet: Fleet, component: Component, roles: tuple[Role, ...], share: machines.Share) -> int:
    """Queues between an engine's processes, and NCCL; vLLM's tier in host memory lies in shared memory, too."""
    ranks, tiers_gib = 0, 0.0
    for role in roles:
        spec = fleet.recipe.role(role)
        workers = spec.replicas if component == "node" else 1
        ranks += workers * spec.parallel.per_node
        tiers_gib += workers * (spec.kv_tiers.memory_gib or 0 if spec.kv_tiers else 0)
    return (4 if share.gpus else 1) * ranks + math.ceil(tiers_gib)


def _environment(fleet: Fleet, component: Component, roles: tuple[Role, ...]) -> Iterator[Object]:
    recipe = fleet.recipe
    yield from identity(component)
    for role in roles:
        if fleet.efa(role):  # a pod sees the devices of the whole machine and may open its own
            yield {"name": "HYPERPD_INSTANCE_TYPE", "value": recipe.role(role).instance_type}
            yield {"name": "HYPERPD_EFA_DEVICES", "value": str(machines.share(fleet, role).efa)}
    if any((tiers := recipe.role(role).kv_tiers) and tiers.managed for role in roles):
        yield {"name": "HYPERPD_NODE_ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}
    if component in ("aggregated", "node"):
        yield from keys(fleet)
    yield from certificates.variables(fleet, component)
    if (secret := fleet.options.hf_token_secret) and fleet.from_hub:
        yield {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": secret, "key": storage.TOKEN_KEY}}}


def identity(component: Component) -> Iterator[Object]:
    """The variables of every pod."""
    yield {"name": "HYPERPD_ROLE", "value": component}
    yield {"name": "HYPERPD_RECIPE", "value": f"{RECIPE_FOLDER}/{RECIPE_KEY}"}
    yield {"name": "HYPERPD_STATE_DIR", "value": f"{storage.TMP}/hyperpd"}
    yield {"name": "HYPERPD_ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}


def keys(fleet: Fleet) -> Iterator[Object]:
    """Where the key file is, where the recipe asks for one."""
    if fleet.recipe.gateway.auth == "keys":
        yield {"name": "HYPERPD_KEYS_FILE", "value": f"{storage.KEYS_FOLDER}/{storage.KEYS_KEY}"}


def _ports(fleet: Fleet, component: Component, leads: bool) -> list[Object]:
    if component == "node":
        ports = [(GATEWAY_API, PORTS.gateway_api), (GATEWAY_ADMIN, PORTS.gateway_admin)]
        for worker in fleet.on_one_machine().workers:
            ports += [
                (f"{API}-{worker.api_port}", worker.api_port),
                (f"{ADMIN}-{worker.admin_port}", worker.admin_port),
            ]
    else:
        ports = [*([(API, PORTS.worker_api)] if leads else []), (ADMIN, PORTS.worker_admin)]
        if component != "aggregated":
            ports.append((SIDE_CHANNEL, PORTS.side_channel))
    return [{"name": name, "containerPort": port} for name, port in ports]


def _probes(fleet: Fleet, component: Component, leads: bool) -> tuple[Object, Notes]:
    everything = component == "node"
    by = certificates.probed(fleet, component)
    ready = probe("/ping", GATEWAY_API, by) if everything else probe("/ready", ADMIN, by)
    alive = probe("/health", GATEWAY_ADMIN, by) if everything else probe("/health", API, by)
    tries = lifetimes.startup_tries(fleet.recipe, component, leads=leads)
    every = {"periodSeconds": lifetimes.PERIOD_S, "timeoutSeconds": 5}
    probes: Object = {
        "startupProbe": ready | every | {"failureThreshold": tries},
        "readinessProbe": ready | {"periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 2},
    }
    notes = {
        "startupProbe": "start_timeout_s and a margin: the pod gives up by itself before, and says why.",
        "readinessProbe": "Ready to serve"
        + (
            ", a first request from prefill to decode included."
            if everything
            else ": the engine answers, and no drain has begun. Gateways ask for themselves, too."
        ),
    }
    if leads:
        probes["livenessProbe"] = alive | every | {"failureThreshold": 12}
        notes["livenessProbe"] = (
            "Only that the supervisor answers: it watches the engines."
            if everything
            else "Two minutes without an answer: a full engine is slow, not dead."
        )
    return probes, notes


def probe(path: str, port: str, by: Object) -> Object:
    """by: as certificates.probed has it."""
    return {"httpGet": {"path": path, "port": port, **by}}


def below(path: str, notes: Mapping[str, str]) -> Notes:
    return {f"{path}.{key}": note for key, note in notes.items() if note}

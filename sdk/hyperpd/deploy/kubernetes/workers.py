"""Workers: a Deployment or LeaderWorkerSet for each role, or one pod with all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hyperpd.deploy.kubernetes import access, lifetimes, machines, queue, storage
from hyperpd.deploy.kubernetes.fleet import (
    DIGEST,
    PORTS,
    RECIPE_FOLDER,
    RECIPE_KEY,
    Component,
    Fleet,
    Object,
    Room,
    selector,
)
from hyperpd.deploy.target import Document
from hyperpd.engine import hub_names
from hyperpd.recipe import Role

FILE = "4-engines.yaml"
ADMIN, API, SIDE_CHANNEL = "admin", "api", "side-channel"  # names of ports
GATEWAY_API, GATEWAY_ADMIN = "http", "gateway-admin"
_IMAGE_PULL_S = 1800  # of some 10 GB, on a machine that is new

Notes = dict[str, str]


def documents(fleet: Fleet) -> Iterator[Document]:
    """The workloads, each with its disruption budget."""
    if fleet.local:
        yield _node(fleet)
        return
    for role, spec in fleet.recipe.roles().items():
        yield _groups(fleet, role) if spec.parallel.nodes > 1 else _deployment(fleet, role)
        yield budget(fleet, role)


def budget(fleet: Fleet, component: Component, room: Room = "engines", file: str = FILE) -> Document:
    """One pod at a time. A share would be none of one."""
    body = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": fleet.meta(component, room, component),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector(component)}},
    }
    return Document(file, "Machines are drained one pod of this at a time.", body)


def _deployment(fleet: Fleet, role: Role) -> Document:
    recipe, spec = fleet.recipe, fleet.recipe.role(role)
    template, notes = _template(fleet, role, (role,))
    deadline_s = (
        lifetimes.startup_tries(recipe, role) * lifetimes.PERIOD_S + lifetimes.ending_s(recipe, role) + _IMAGE_PULL_S
    )
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _workload_meta(fleet, role, role),
        "spec": {
            "replicas": spec.replicas,
            "progressDeadlineSeconds": deadline_s,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
            "selector": {"matchLabels": selector(role)},
            "template": template,
        },
    }
    notes = {
        **_scaled(fleet, role),
        "spec.progressDeadlineSeconds": "Pulling the image, an orderly end, and start_timeout_s.",
        "spec.strategy": "One after the other: there are no machines for two of a worker.",
        **_below("spec.template", notes),
    }
    return Document(FILE, " ".join(filter(None, (f"Each pod is a {role} worker.", queue.note(fleet)))), body, notes)


def _groups(fleet: Fleet, role: Role) -> Document:
    spec = fleet.recipe.role(role)
    leader, notes = _template(fleet, role, (role,))
    follower, _ = _template(fleet, role, (role,), leads=False)
    body = {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": _workload_meta(fleet, fleet.workload(role), role),
        "spec": {
            "replicas": spec.replicas,
            "startupPolicy": "LeaderCreated",
            "rolloutStrategy": {
                "type": "RollingUpdate",
                "rollingUpdateConfiguration": {"maxSurge": 0, "maxUnavailable": 1},
            },
            "leaderWorkerTemplate": {
                "size": spec.parallel.nodes,
                "restartPolicy": "RecreateGroupOnPodRestart",
                "leaderTemplate": leader,
                "workerTemplate": follower,
            },
        },
    }
    notes = {
        **_scaled(fleet, role),
        "spec.startupPolicy": "Together: the first machine is ready only when the others have joined it.",
        "spec.rolloutStrategy": "One group after the other: there are no machines for two of a worker.",
        "spec.leaderWorkerTemplate.restartPolicy": "Ranks cannot join an engine again that has lost one of them.",
        "spec.leaderWorkerTemplate.workerTemplate": "The other machines: no API, so nothing to look at for liveness;"
        " a pod ends when its engine ends.",
        **_below("spec.leaderWorkerTemplate.leaderTemplate", notes),
    }
    comment = f"Each group of {spec.parallel.nodes} pods is a {role} worker; its first pod has the API."
    return Document(FILE, " ".join(filter(None, (comment, queue.note(fleet)))), body, notes)


def _node(fleet: Fleet) -> Document:
    template, notes = _template(fleet, "node", tuple(fleet.recipe.roles()))
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _workload_meta(fleet, "node", "node"),
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": selector("node")},
            "template": template,
        },
    }
    comment = (
        "All workers and the gateway in one container: with kv_transfer.fabric: local the KV cache moves by CUDA IPC,"
        " which does not leave a container. So there is one gateway, and a restart is a pause."
    )
    comment = " ".join(filter(None, (comment, queue.note(fleet))))
    return Document(FILE, comment, body, _below("spec.template", notes))


def _workload_meta(fleet: Fleet, name: str, component: Component) -> Object:
    meta = fleet.meta(name, "engines", component)
    meta["labels"] |= queue.labels(fleet)
    return meta


def _scaled(fleet: Fleet, role: Role) -> Notes:
    if not fleet.recipe.role(role).autoscaling:
        return {}
    return {"spec.replicas": "To begin with; applied again, it holds until KEDA decides anew."}


def _template(
    fleet: Fleet, component: Component, roles: tuple[Role, ...], *, leads: bool = True
) -> tuple[Object, Notes]:
    """The pod of a worker, or of all, with notes on it."""
    everything = component == "node"
    share = machines.share_of_all(fleet) if everything else machines.share(fleet, roles[0])
    security, why_security = access.container_security(fleet, "engines")
    where, why_where = machines.scheduling(fleet, component, roles[0])
    mounts = storage.of_engines(fleet, component, roles, _shared_memory_gib(fleet, roles, share))
    probes, why_probes = _probes(fleet, component, leads)
    container = {
        "name": component,
        "image": fleet.image,
        "env": list(_environment(fleet, component, roles)),
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
        "terminationGracePeriodSeconds": lifetimes.ending_s(fleet.recipe, component),
        **where,
        "securityContext": access.pod_security(fleet, "engines"),
        "containers": [container],
        "volumes": [volume for volume, _ in mounts],
    }
    meta = {
        "labels": fleet.labels(component) | queue.pod_labels(fleet),
        "annotations": {DIGEST: fleet.file.digest, **queue.pod_annotations(fleet)},
    }
    notes = {
        "metadata.annotations": "A changed recipe starts new pods.",
        "spec.enableServiceLinks": "A Service's variables would be taken for settings.",
        "spec.terminationGracePeriodSeconds": lifetimes.ending_note(component),
        **_below("spec", why_where),
        **_below("spec.containers.0", why_probes),
        "spec.containers.0.resources": share.note,
        "spec.containers.0.securityContext": why_security,
    }
    return {"metadata": meta, "spec": spec}, notes


def _shared_memory_gib(fleet: Fleet, roles: tuple[Role, ...], share: machines.Share) -> int:
    """Queues between an engine's processes and NCCL; a tier in host memory lies in shared memory, too."""
    ranks = share.gpus or sum(fleet.recipe.role(role).parallel.per_node for role in roles)
    specs = [fleet.recipe.role(role) for role in roles]
    tiers = sum(
        s.replicas * (s.kv_tiers.memory_gib or 0) if len(roles) > 1 else s.kv_tiers.memory_gib or 0
        for s in specs
        if s.kv_tiers
    )
    return (4 if share.gpus else 1) * ranks + int(-(-tiers // 1))


def _environment(fleet: Fleet, component: Component, roles: tuple[Role, ...]) -> Iterator[Object]:
    recipe = fleet.recipe
    yield from identity(component)
    if any(fleet.efa(role) and _whole_machine(fleet, role) for role in roles):
        # A part of a machine sees the devices of all of it and may open its own only.
        yield {"name": "HYPERPD_INSTANCE_TYPE", "value": recipe.role(roles[0]).instance_type}
    if any((tiers := recipe.role(role).kv_tiers) and tiers.managed for role in roles):
        yield {"name": "HYPERPD_NODE_ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}
    if component in ("aggregated", "node"):
        yield from keys(fleet)
    if (secret := fleet.options.hf_token_secret) and from_hub(fleet):
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


def from_hub(fleet: Fleet) -> bool:
    """Whether engines read anything from Hugging Face."""
    return bool(fleet.recipe.model.huggingface or hub_names(fleet.recipe))


def _whole_machine(fleet: Fleet, role: Role) -> bool:
    machine = fleet.machine(role)
    return machine is not None and fleet.recipe.role(role).parallel.per_node == machine.gpus


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
    ready = probe("/ping", GATEWAY_API) if everything else probe("/ready", ADMIN)
    alive = probe("/status", GATEWAY_ADMIN) if everything else probe("/health", API)
    tries = lifetimes.startup_tries(fleet.recipe, component)
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


def probe(path: str, port: str) -> Object:
    return {"httpGet": {"path": path, "port": port}}


def _below(path: str, notes: Mapping[str, str]) -> Notes:
    return {f"{path}.{key}": note for key, note in notes.items() if note}

"""The gateway: its Deployment and its disruption budget."""

from __future__ import annotations

from collections.abc import Iterator

from hyperpd.deploy.kubernetes import access, certificates, lifetimes, machines, network, pods, storage, workers
from hyperpd.deploy.kubernetes.fleet import DIGEST, PORTS, Fleet, Object, selector
from hyperpd.deploy.target import Document

FILE = "5-gateway.yaml"


def documents(fleet: Fleet) -> Iterator[Document]:
    if fleet.local:
        return
    yield _deployment(fleet)
    yield workers.budget(fleet, "gateway", "gateway", FILE)


def _deployment(fleet: Fleet) -> Document:
    recipe = fleet.recipe
    spec = {
        "serviceAccountName": "gateway",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": lifetimes.ending_s(recipe, "gateway"),
        "tolerations": machines.tolerations(),
        "topologySpreadConstraints": [_spread(machines.HOSTNAME), _spread(machines.ZONE)],
        "securityContext": access.pod_security(fleet, "gateway"),
        "containers": [_container(fleet)],
        "volumes": [volume for volume, _ in storage.of_gateway(fleet)],
    }
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": fleet.meta("gateway", "gateway", "gateway"),
        "spec": {
            "replicas": recipe.gateway.replicas,
            "progressDeadlineSeconds": lifetimes.progress_s(recipe, "gateway"),
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "selector": {"matchLabels": selector("gateway")},
            "template": {
                "metadata": {"labels": fleet.labels("gateway"), "annotations": {DIGEST: fleet.file.digest}},
                "spec": spec,
            },
        },
    }
    at = "spec.template.spec"
    notes = {
        "spec.progressDeadlineSeconds": lifetimes.progress_note("gateway"),
        "spec.template.metadata.annotations": "A changed recipe starts new pods.",
        f"{at}.enableServiceLinks": "A Service's variables would be taken for settings.",
        f"{at}.terminationGracePeriodSeconds": lifetimes.ending_note("gateway"),
        f"{at}.tolerations": "A gateway needs no GPU, and runs beside one where there is no other machine.",
        f"{at}.topologySpreadConstraints": "Apart where that is possible.",
        f"{at}.containers.0.lifecycle": "An idle gateway would be gone before the cluster knows: for"
        f" {lifetimes.GATEWAY_NOTICE_S} s it serves what is still sent to it.",
        f"{at}.containers.0.livenessProbe": "Of this process alone: without workers a gateway is not ready, but well.",
        f"{at}.containers.0.resources": "One process relays bytes on one CPU; bodies are held while they run.",
    }
    return Document(FILE, "Finds workers by DNS, and asks each one itself whether it is ready.", body, notes)


def sources(fleet: Fleet) -> list[Object]:
    """The variables that say where workers are."""
    return [
        {
            "name": f"HYPERPD_{role.upper()}",
            "value": f"dns://{role}.{fleet.namespace('engines')}.svc.cluster.local:{PORTS.worker_api}",
        }
        for role in fleet.recipe.roles()
    ]


def _container(fleet: Fleet) -> Object:
    security, _ = access.container_security(fleet, "gateway")
    by = certificates.probed(fleet, "gateway")
    alive = pods.probe("/health", pods.ADMIN, by)
    return {
        "name": "gateway",
        "image": fleet.image,
        "env": [
            *pods.identity("gateway"),
            *sources(fleet),
            *pods.keys(fleet),
            *certificates.variables(fleet, "gateway"),
        ],
        "ports": [
            {"name": network.HTTP, "containerPort": PORTS.gateway_api},
            {"name": pods.ADMIN, "containerPort": PORTS.gateway_admin},
        ],
        "startupProbe": alive | {"periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 60},
        "readinessProbe": pods.probe("/ping", network.HTTP, by)
        | {"periodSeconds": 2, "timeoutSeconds": 5, "failureThreshold": 2},
        "livenessProbe": alive | {"periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6},
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(lifetimes.GATEWAY_NOTICE_S)]}}},
        "resources": {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"memory": "2Gi"}},
        "securityContext": security,
        "volumeMounts": [mount for _, mount in storage.of_gateway(fleet)],
    }


def _spread(topology: str) -> Object:
    return {
        "maxSkew": 1,
        "topologyKey": topology,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": selector("gateway")},
    }

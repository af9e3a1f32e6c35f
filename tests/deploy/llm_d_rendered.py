"""Recipes as the target llm_d renders them, and what llm-d's charts make of the values.

The charts' own objects are restated here as far as others depend on them (llm-d-router v0.10.0): names, labels, ports.
"""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from hyperpd import deploy
from hyperpd.deploy.llm_d import charts
from hyperpd.recipe import RecipeFile
from tests.deploy import objects_recipes, objects_rendered
from tests.deploy.test_kubernetes import PAIR

EXAMPLES = Path(__file__).parents[2] / "examples" / "llm-d"
DATA = Path(__file__).parents[1] / "data" / "llm-d"
GATEWAY = "gateway=edge/inference"
PRIORITIES = "priorities=interactive=10,batch=-10"
ROUTES = ("istio", "nginx")
# Recipes that llm-d cannot serve, each with a part of why.
REFUSED = {
    "gpt-oss-120b-p6-b200-4p1d": "kv_transfer.fabric: local",
    "tiny-gpu-1p1d": "kv_transfer.fabric: local",
    "tcp-1p1d": "gateway.auth: llm-d asks for no key",
}
Object = dict[str, Any]
IMAGE = f"image={objects_rendered.IMAGE}"
EVENTS = (
    "{{enable_kv_cache_events: true, publisher: zmq, endpoint: 'tcp://*:{port}', topic: 'kv@{role}@example/small'}}"
)
HEARD = (
    PAIR.replace("prefill: {", f"prefill: {{engine: {{kv-events-config: {EVENTS.format(port=5558, role='prefill')}}}, ")
    .replace("decode: {", f"decode: {{engine: {{kv_events_config: {EVENTS.format(port=5557, role='decode')}}}, ")
    .replace("name: pair", "name: heard")
)


def names() -> list[str]:
    return [name for name in objects_recipes.names() if name not in REFUSED]


def settings(name: str, *more: str) -> list[str]:
    return [*objects_rendered.settings(name, "hyperpod"), GATEWAY, *more]


def rendered(name: str, *more: str) -> list[Object]:
    """The objects for kubectl, a copy to break."""
    return [copy.deepcopy(body) for file, body in _rendered(name, more) if not file.startswith("llm-d/")]


def release(name: str, *more: str) -> tuple[Object, Object]:
    """(the helmfile's release, its values)."""
    bodies = dict(_rendered(name, more))
    (only,) = bodies[charts.FILE]["releases"]
    return only, bodies[charts.VALUES_FILE]


def made(name: str, *more: str) -> list[Object]:
    """The objects of llm-d's chart that others name or reach."""
    only, values = release(name, *more)
    router, pool, where = values["router"], only["name"], only["namespace"]
    picker, own = f"{pool}-epp", {"llm-d-router-gateway": f"{pool}-epp"}
    standalone = only["chart"].endswith("standalone")
    envoy = [{"name": "http", "port": 8081, "targetPort": 8081}] if standalone else []
    ports = [{"name": "grpc", "containerPort": 9002}, {"name": "metrics", "containerPort": 9090}]
    epp = {
        "name": "epp",
        "image": "{registry}/{repository}:{tag}".format(**router["epp"]["image"]),
        "args": ["--pool-name", pool, "--pool-namespace", where, "--config-file", "/config/hyperpd.yaml"],
        "ports": ports,
        "resources": router["epp"]["resources"],
    }
    containers = [*([_envoy(router)] if standalone else []), epp]
    spec = {
        "serviceAccountName": picker,
        "containers": containers,
        "volumes": [{"name": "plugins-config-volume", "configMap": {"name": picker}}],
        "tolerations": router["epp"]["tolerations"],
    }
    return [
        _object("v1", "ServiceAccount", picker, where),
        _object(
            "v1",
            "Service",
            picker,
            where,
            selector=own,
            ports=[
                {"name": "grpc-ext-proc", "port": 9002, "appProtocol": "kubernetes.io/h2c"},
                {"name": "http-metrics", "port": 9090},
                *envoy,
            ],
        ),
        _object(
            "apps/v1",
            "Deployment",
            picker,
            where,
            replicas=router["epp"]["replicas"],
            selector={"matchLabels": own},
            template={"metadata": {"labels": own}, "spec": spec},
        ),
        _object(
            "inference.networking.k8s.io/v1",
            "InferencePool",
            pool,
            where,
            targetPorts=router["modelServers"]["targetPorts"],
            appProtocol=router["modelServers"]["protocol"],
            selector={"matchLabels": router["modelServers"]["matchLabels"]},
            endpointPickerRef={"name": picker, "port": {"number": 9002}, **router["inferencePool"]},
        ),
        *(
            _object(
                "llm-d.ai/v1alpha2",
                "InferenceObjective",
                each["name"],
                where,
                priority=each["priority"],
                poolRef={"group": "inference.networking.k8s.io", "name": pool},
            )
            for each in router.get("inferenceObjectives", ())
        ),
    ]


def configuration(name: str, *more: str) -> Object:
    """The EndpointPickerConfig in the values."""
    epp = release(name, *more)[1]["router"]["epp"]
    (text,) = epp["pluginsCustomConfig"].values()
    assert list(epp["pluginsCustomConfig"]) == [epp["pluginsConfigFile"]]
    body: Object = yaml.safe_load(text)
    return body


def _envoy(router: Object) -> Object:
    image = router["proxy"].get("image", "docker.io/envoyproxy/envoy:distroless-v1.33.2")
    resources = {"requests": {"cpu": "4", "memory": "8Gi"}, "limits": {"memory": "16Gi"}}
    started = {"command": ["envoy"], "args": ["-c", "/etc/envoy/envoy.yaml"]}
    return {
        "name": "envoy-proxy",
        "image": image,
        **started,
        "ports": [{"containerPort": 8081}],
        "resources": resources,
    }


def _object(version: str, kind: str, name: str, namespace: str, **spec: Any) -> Object:
    body = {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": namespace}}
    return {**body, **({"spec": spec} if spec else {})}


@cache
def _rendered(name: str, more: tuple[str, ...]) -> list[tuple[str, Object]]:
    rendering = deploy.render(objects_recipes.load(name), "llm_d", settings(name, *more))
    return [(one.file, dict(one.body)) for one in rendering.documents if not isinstance(one.body, str)]


def texts(file: RecipeFile, *more: str) -> dict[str, str]:
    given = [IMAGE, GATEWAY, *more]
    return deploy.texts(deploy.render(file, "llm_d", given), file, given)


def example(route: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((EXAMPLES / f"gateway-{route}.yaml").read_text()))

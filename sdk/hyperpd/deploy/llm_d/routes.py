"""How requests reach llm-d: an HTTPRoute, what NGINX needs beside it, and network policies.

NGINX Gateway Fabric 2.6 takes from an endpoint picker the chosen pod and nothing else. The header that says where the
prefill is to be done would be lost, and with it every handoff. So NGINX passes on to llm-d's own Envoy instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from hyperpd.deploy.kubernetes import network, sidecar
from hyperpd.deploy.kubernetes.fleet import PORTS, Fleet, Object, selector
from hyperpd.deploy.llm_d import charts, events
from hyperpd.deploy.llm_d.options import Options
from hyperpd.deploy.target import Document

FILE = "8-llm-d.yaml"
NAME = "llm-d"
PATHS = ("/v1/completions", "/v1/chat/completions", "/v1/models")  # what hyperpd's gateway serves
ASK, ASKED = "x-hyperpd-front", {"llm_d": "llm-d", "ours": "hyperpd"}
# What steers a request inside the cluster, and so is not a client's to say.
STEERING = (
    "x-prefiller-host-port",
    "x-encoder-hosts-ports",
    "x-kv-cache-source-host-port",
    "x-data-parallel-host-port",
    "x-data-parallel-rank",
    "x-gateway-destination-endpoint",
    "x-gateway-destination-endpoint-subset",
)
_GATEWAY_API = "gateway.networking.k8s.io"
_POOL = {"group": "inference.networking.k8s.io", "kind": "InferencePool", "name": charts.RELEASE}
_SERVICE = {"group": "", "kind": "Service"}  # the API's own default, which its rules read
_PROXY = f"{_GATEWAY_API}/gateway-name"  # the label of a Gateway's own pods


def documents(fleet: Fleet, options: Options) -> Iterator[Document]:
    """The route, its settings, and what reads the endpoint picker's metrics."""
    yield _monitor(fleet)
    if options.front != "llm_d":
        yield _grant(fleet)
    yield _route(fleet, options)
    if options.route == "nginx":
        yield from _nginx(fleet, options)


def _route(fleet: Fleet, options: Options) -> Document:
    namespace, _, name = str(options.gateway).partition("/")
    llm_d: Object = (
        dict(_POOL) if options.route == "istio" else _SERVICE | {"name": charts.PICKER, "port": charts.ENVOY_PORT}
    )
    ours = _SERVICE | {"name": "gateway", "namespace": fleet.namespace("gateway"), "port": PORTS.gateway_api}
    rules = {
        "llm_d": [_rule(options, llm_d)],
        "both": [_rule(options, ours, ASKED["ours"]), _rule(options, llm_d)],
        "canary": [_rule(options, llm_d, ASKED["llm_d"]), _rule(options, ours)],
    }[options.front]
    body = {
        "apiVersion": f"{_GATEWAY_API}/v1",
        "kind": "HTTPRoute",
        "metadata": fleet.meta(NAME, "engines"),
        "spec": {
            "parentRefs": [{"group": _GATEWAY_API, "kind": "Gateway", "name": name, "namespace": namespace}],
            **({"hostnames": [options.hostname]} if options.hostname else {}),
            "rules": rules,
        },
    }
    said = {
        "llm_d": "Every request goes to llm-d.",
        "both": f"Requests go to llm-d; those with {ASK}: {ASKED['ours']} to hyperpd's gateway.",
        "canary": f"Requests go to hyperpd's gateway; those with {ASK}: {ASKED['llm_d']} to llm-d.",
    }[options.front]
    said += " The Gateway has to admit routes of this namespace (allowedRoutes)."
    if options.route == "istio":
        said += (
            f" And it has to refuse requests with {STEERING[0]} and the like, as examples/llm-d/gateway-istio.yaml"
            " does: a client's own would have prompts sent where it says."
        )
    return Document(FILE, said, body)


def _rule(options: Options, backend: Object, asked: str = "") -> Object:
    headers = {"headers": [{"name": ASK, "value": asked}]} if asked else {}
    rule: Object = {
        "matches": [{"path": {"type": "Exact", "value": path}, **headers} for path in PATHS],
        "backendRefs": [backend],
    }
    if options.route == "istio":
        # Headers are not removed here: Envoy would remove them after the endpoint picker has set its own.
        return rule | {"timeouts": {"request": f"{options.stream_timeout_s}s"}}
    remove = {"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": list(STEERING)}}
    return rule | {"filters": [remove]}


def _nginx(fleet: Fleet, options: Options) -> Iterator[Document]:
    target = {"group": _GATEWAY_API, "kind": "HTTPRoute", "name": NAME}
    seconds = f"{options.stream_timeout_s}s"
    passing = {"targetRefs": [target], "buffering": {"disable": True}, "timeout": {"read": seconds, "send": seconds}}
    mib = math.ceil(fleet.recipe.gateway.limits.body_mib)  # at most 1024; NGINX takes whole numbers
    coming = {"targetRef": target, "body": {"maxSize": f"{mib}m"}}
    for kind, spec, why in (
        ("ProxySettingsPolicy", passing, "Tokens pass as they come: no buffer, and time for a long one."),
        ("ClientSettingsPolicy", coming, "gateway.limits.body_mib: NGINX's own default refuses long prompts (1 MiB)."),
    ):
        body = {
            "apiVersion": "gateway.nginx.org/v1alpha1",
            "kind": kind,
            "metadata": fleet.meta(NAME, "engines"),
            "spec": spec,
        }
        yield Document(FILE, why, body)


def _grant(fleet: Fleet) -> Document:
    route = {"group": _GATEWAY_API, "kind": "HTTPRoute", "namespace": fleet.namespace("engines")}
    body = {
        "apiVersion": f"{_GATEWAY_API}/v1",
        "kind": "ReferenceGrant",
        "metadata": fleet.meta(NAME, "gateway"),
        "spec": {"from": [route], "to": [{"group": "", "kind": "Service", "name": "gateway"}]},
    }
    return Document(FILE, "The route may also lead to hyperpd's gateway.", body)


def policies(fleet: Fleet, options: Options) -> Iterator[Document]:
    """What llm-d adds to who may reach whom."""
    namespace, _, name = str(options.gateway).partition("/")
    proxies = [{"namespaceSelector": network.named(namespace), "podSelector": {"matchLabels": {_PROXY: name}}}]
    picker = [{"podSelector": {"matchLabels": charts.PICKER_LABELS}}]
    members = [{"podSelector": {"matchLabels": sidecar.MEMBER}}]
    heard = sorted({events.port(role) for role in fleet.recipe.roles()}) if events.published(fleet.recipe) else []
    ports = [*charts.target_ports(fleet), *heard]
    asked = charts.PICKER_PORT if options.route == "istio" else charts.ENVOY_PORT
    egress: list[Any] = [
        network.dns(),
        {"to": members, "ports": network.tcp(ports)},
        {"to": [network.block(cidr) for cidr in network.VPC], "ports": network.tcp([443])},
    ]
    why = "The endpoint picker watches pods at the API server and reads workers' metrics; the Gateway's proxies ask it."
    if heard:
        egress.append(network.internet())
        why += " Its tokeniser loads from Hugging Face."
    spec = {
        "podSelector": {"matchLabels": charts.PICKER_LABELS},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            network.opened(proxies, [asked]),
            network.opened(network.monitoring(fleet), [charts.METRICS_PORT]),
        ],
        "egress": egress,
    }
    yield _policy(fleet, "llm-d-router", why, spec)
    direct = [network.opened(proxies, charts.target_ports(fleet))] if options.route == "istio" else []
    spec = {
        "podSelector": {"matchLabels": sidecar.MEMBER},
        "policyTypes": ["Ingress"],
        "ingress": [network.opened(picker, ports), *direct],
    }
    yield _policy(fleet, "llm-d-workers", "The endpoint picker reads metrics; requests come in.", spec)
    if options.front != "llm_d":
        spec = {
            "podSelector": {"matchLabels": selector("gateway")},
            "policyTypes": ["Ingress"],
            "ingress": [network.opened(proxies, [PORTS.gateway_api])],
        }
        yield _policy(fleet, "llm-d-front", "The Gateway's proxies reach hyperpd's gateway.", spec, "gateway")


def _policy(fleet: Fleet, name: str, why: str, spec: Object, room: Any = "engines") -> Document:
    meta = fleet.meta(name, room)
    body = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec}
    return Document(network.FILE, why, body)


def _monitor(fleet: Fleet) -> Document:
    body = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": fleet.meta("llm-d-router", "engines"),
        "spec": {
            "selector": {"matchLabels": charts.PICKER_LABELS},
            "podMetricsEndpoints": [{"port": "metrics", "path": "/metrics", "interval": "15s"}],
        },
    }
    return Document(FILE, "The endpoint picker's metrics (llm_d_epp_…).", body)

"""Who finds and reaches whom: Services and NetworkPolicies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hyperpd.deploy.kubernetes import certificates, pods
from hyperpd.deploy.kubernetes.fleet import PORTS, Component, Fleet, Object, Room, selector
from hyperpd.deploy.target import Document
from hyperpd.engine import MANAGED_TIER_PORT
from hyperpd.recipe import Role

FILE = "3-network.yaml"
HTTP = pods.GATEWAY_API
_LEADER = {"leaderworkerset.sigs.k8s.io/worker-index": "0"}
VPC = ["10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16"]  # where machines have their addresses
# What is not the internet. An S3 endpoint with an address of the VPC (not the common gateway endpoint) needs a
# rule of its own.
_PRIVATE = [*VPC, "169.254.0.0/16"]
_NODE_DNS = "169.254.20.10/32"  # NodeLocal DNSCache, where a cluster has it
_POD_IDENTITY = "169.254.170.23/32"  # EKS' agent on every machine, port 80
_EVERYWHERE = "0.0.0.0/0"
_EFA = "EFA passes beside every NetworkPolicy: for it, the machines' security group has to allow all traffic within."

_PATHS = (
    "A policy knows ports and no paths: on the ports with metrics monitoring could also ask for inference or a drain;"
    " the option monitoring_pods narrows it to the pods that scrape."
)


def policies(fleet: Fleet) -> Iterator[Document]:
    """Everything is closed, then what is needed is opened."""
    for room in fleet.rooms:
        closed = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
        yield _policy(fleet, "closed", room, "What no other policy here names does not come about.", closed)
    workers = {"matchLabels": selector()}
    if fleet.local:
        ingress = [opened(_clients(fleet), [PORTS.gateway_api]), opened(monitoring(fleet), _node_metrics(fleet))]
        spec = {
            "podSelector": workers,
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": _needs(fleet),
        }
        why = f"Clients reach the gateway; monitoring reads metrics. {_PATHS}"
        yield _policy(fleet, "node", "engines", why, spec)
        return
    ports = [PORTS.worker_api, PORTS.worker_admin]
    gateway = [{"namespaceSelector": named(fleet.namespace("gateway")), "podSelector": _component("gateway")}]
    asked = gateway_ports(fleet)
    ingress = [opened(gateway, asked), opened(monitoring(fleet), ports)]
    egress = _needs(fleet)
    why = "The gateway and monitoring reach workers; workers reach no one they do not need."
    if asked != ports:
        why += " KV events, which tell prompts, are for the gateway alone."
    if not fleet.recipe.aggregated or fleet.recipe.aggregated.parallel.nodes > 1:
        ingress.append({"from": [{"podSelector": workers}]})
        egress.append({"to": [{"podSelector": workers}]})
        why += " Each other on every port: NIXL's and torch's data ports are chosen at run time."
    if any(fleet.efa(role) for role in fleet.recipe.roles()):
        why += f" {_EFA}"
    why += f" {_PATHS}"
    spec = {"podSelector": workers, "policyTypes": ["Ingress", "Egress"], "ingress": ingress, "egress": egress}
    yield _policy(fleet, "engines", "engines", why, spec)
    engines = [{"namespaceSelector": named(fleet.namespace("engines")), "podSelector": workers}]
    spec = {
        "podSelector": _component("gateway"),
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [opened(_clients(fleet), [PORTS.gateway_api]), opened(monitoring(fleet), [PORTS.gateway_admin])],
        "egress": [dns(), {"to": engines, "ports": tcp(asked)}],
    }
    why = (
        "Clients reach the API; the gateway reaches DNS and workers. Monitoring reads metrics and status; a drain takes"
        " an operator's key, or comes from the pod itself."
    )
    yield _policy(fleet, "gateway", "gateway", why, spec)


def gateway_ports(fleet: Fleet) -> list[int]:
    """Ports of workers that a gateway reaches."""
    exact = fleet.recipe.gateway.prefix_view == "exact"
    return [PORTS.worker_api, PORTS.worker_admin, *([PORTS.kv_events, PORTS.kv_replay] if exact else [])]


def services(fleet: Fleet) -> Iterator[Document]:
    """A name for each role's workers, and the gateway's address. Admin ports have none."""
    if fleet.local:
        yield _gateway_service(fleet, "engines", "node")
        return
    for role in fleet.recipe.roles():
        yield _workers_service(fleet, role)
    yield _gateway_service(fleet, "gateway", "gateway")


def _workers_service(fleet: Fleet, role: Role) -> Document:
    groups = fleet.recipe.role(role).parallel.nodes > 1
    body = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": fleet.meta(role, "engines", role),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": selector(role) | (_LEADER if groups else {}),
            "ports": [{"name": pods.API, "port": PORTS.worker_api, "targetPort": pods.API}],
        },
    }
    notes = {"spec.publishNotReadyAddresses": "A gateway asks workers itself, and sees one that drains at once."}
    if groups:
        notes["spec.selector"] = "Of each group the pod with the API."
    return Document(FILE, "Each address of this name is a worker.", body, notes)


def _gateway_service(fleet: Fleet, room: Room, component: Component) -> Document:
    body = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": fleet.meta("gateway", room, component),
        "spec": {
            "type": "ClusterIP",
            "selector": selector(component),
            "ports": [
                {"name": HTTP, "port": PORTS.gateway_api, "targetPort": HTTP} | certificates.port(fleet, component)
            ],
        },
    }
    return Document(FILE, "What clients call.", body)


def _needs(fleet: Fleet) -> list[Object]:
    """What engines reach outside their namespace."""
    rules = [dns()]
    if fleet.recipe.model.s3 or fleet.from_hub:
        rules.append(internet())
    if fleet.recipe.model.s3:
        rules.append({"to": [block(_POD_IDENTITY)], "ports": tcp([80])})
    if any(spec.kv_tiers and spec.kv_tiers.managed for spec in fleet.recipe.roles().values()):
        # The daemon is on the machine's own address, which no selector names.
        rules.append({"to": [block(cidr) for cidr in VPC], "ports": tcp([MANAGED_TIER_PORT])})
    return rules


def _node_metrics(fleet: Fleet) -> list[int]:
    ports = [port for worker in fleet.on_one_machine().workers for port in (worker.api_port, worker.admin_port)]
    return [PORTS.gateway_admin, *sorted(ports)]


def _policy(fleet: Fleet, name: str, room: Room, comment: str, spec: Object) -> Document:
    meta = fleet.meta(f"{room}-{name}" if name == "closed" else name, room)
    return Document(
        FILE, comment, {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec}
    )


def _clients(fleet: Fleet) -> list[Object]:
    """Empty: everybody."""
    namespace = fleet.options.clients_namespace
    return [{"namespaceSelector": named(namespace)}] if namespace else []


def monitoring(fleet: Fleet) -> list[Object]:
    peer: Object = {"namespaceSelector": named(fleet.options.monitoring_namespace)}
    if pods_of := fleet.options.monitoring_pods:
        key, _, value = pods_of.partition("=")
        peer["podSelector"] = {"matchLabels": {key: value}}
    return [peer]


def opened(peers: Sequence[Object], ports: Sequence[int]) -> Object:
    return {**({"from": list(peers)} if peers else {}), "ports": tcp(ports)}


def internet() -> Object:
    return {"to": [{"ipBlock": {"cidr": _EVERYWHERE, "except": _PRIVATE}}], "ports": tcp([443])}


def dns() -> Object:
    ports = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    servers = {"namespaceSelector": named("kube-system"), "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}
    return {"to": [servers, block(_NODE_DNS)], "ports": ports}


def tcp(ports: Sequence[int]) -> list[Object]:
    return [{"protocol": "TCP", "port": port} for port in ports]


def block(cidr: str) -> Object:
    return {"ipBlock": {"cidr": cidr}}


def named(namespace: str) -> Object:
    return {"matchLabels": {"kubernetes.io/metadata.name": namespace}}


def _component(component: Component) -> Object:
    return {"matchLabels": selector(component)}

"""Who may talk to whom in a rendered fleet: the table, and the actors and ports it is about.

Every pair of actors and every port that is not in the table is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from hyperpd.engine import MANAGED_TIER_PORT
from hyperpd.placement import Ports
from hyperpd.recipe import RecipeFile
from tests.deploy.flows import Actor, allowed
from tests.deploy.objects import Object, Pod, of, pods
from tests.deploy.objects_wiring import ports

Flow = tuple[str, str, str, int]  # source, destination, protocol, port

AT = Ports()
EPHEMERAL = 40000
LISTENING = [
    *(("TCP", port) for port in (22, 53, 80, 443, 6443, 9090, AT.kv_events, AT.side_channel, AT.side_channel + 7)),
    ("TCP", MANAGED_TIER_PORT),
    *(("TCP", port) for port in (AT.gateway_api, AT.gateway_admin, AT.worker_api, AT.worker_admin, EPHEMERAL)),
    *(("TCP", port) for port in (AT.data_parallel, AT.worker_api + 1, AT.worker_admin + 1)),
    ("UDP", 53),
    ("UDP", EPHEMERAL),
]
WORKER = [("TCP", AT.worker_api), ("TCP", AT.worker_admin)]
SEVERAL = [*WORKER, ("TCP", AT.worker_api + 1), ("TCP", AT.worker_admin + 1)]  # of a machine with two workers
MONITORING = "monitoring"  # the namespace whose pods may read metrics


def actors(objects: Sequence[Object]) -> list[Actor]:
    """One pod of each role (and one that does not lead, where there are such), and the world around."""
    every = [pod for pod in pods(objects) if pod.role]
    kinds: dict[tuple[str, bool], Pod] = {(pod.role, pod.leads): pod for pod in every}
    labels = {each["metadata"]["name"]: each["metadata"].get("labels", {}) for each in of(objects, "Namespace")}
    made = []
    for number, ((role, leads), pod) in enumerate(kinds.items()):
        called = role if leads else f"{role} follower"
        own = _labels(pod.namespace) | labels.get(pod.namespace, {})
        made.append(Actor(called, f"10.0.1.{number}", pod.namespace, own, pod.labels, ports(pod)))
    return [
        *made,
        Actor("client", "10.0.2.1", "shop", _labels("shop"), {"app": "shop"}),
        *(
            Actor(f"neighbour in {where}", "10.0.2.2", where, _labels(where), {"app": "other"})
            for where in sorted({pod.namespace for pod in every})
        ),
        Actor("monitoring", "10.0.2.3", MONITORING, _labels(MONITORING), {"app.kubernetes.io/name": "prometheus"}),
        Actor("visitor in monitoring", "10.0.2.5", MONITORING, _labels(MONITORING), {"app": "other"}),
        Actor("dns of the node", "169.254.20.10"),
        Actor("dns", "10.0.2.4", "kube-system", _labels("kube-system"), {"k8s-app": "kube-dns"}, {"dns": 53}),
        Actor("API server", "10.0.3.1"),
        Actor("metadata", "169.254.169.254"),
        Actor("pod identity", "169.254.170.23"),
        Actor("internet", "203.0.113.9"),
    ]


def _labels(namespace: str) -> dict[str, str]:
    return {"kubernetes.io/metadata.name": namespace}


def contract(
    objects: Sequence[Object], file: RecipeFile, clients_namespace: str = "", monitoring_pods: str = ""
) -> set[Flow]:
    """The table, for a rendering with these options."""
    recipe = file.recipe
    everybody = actors(objects)
    names = [actor.name for actor in everybody]
    workers = [name for name in names if name.split()[0] in ("prefill", "decode", "aggregated")]
    # With the fabric local, one pod is both: what clients call, and the workers.
    front = "node" if "node" in names else "gateway"
    # Nothing in our namespaces but what we render may talk at all.
    clients = [name for name in names if name not in (front, *workers) and not name.startswith("neighbour")]
    if clients_namespace:
        clients = [actor.name for actor in everybody if actor.namespace == clients_namespace]
    monitoring = ["monitoring"] if monitoring_pods else ["monitoring", "visitor in monitoring"]
    table: set[Flow] = set()

    def let(sources: Sequence[str], destinations: Sequence[str], listening: Sequence[tuple[str, int]]) -> None:
        table.update((*pair, *at) for pair in product(sources, destinations) for at in listening)

    let(clients, [front], [("TCP", AT.gateway_api)])
    let(["gateway"] if workers else [], workers, WORKER)
    inside = [actor.ports.values() for actor in everybody if actor.name == "node"]
    let(monitoring, [front], [("TCP", AT.gateway_admin)])
    let(monitoring, ["node"], [each for each in SEVERAL for numbers in inside if each[1] in numbers])
    let(monitoring, workers, WORKER)
    let([front, *workers], ["dns", "dns of the node"], [("TCP", 53), ("UDP", 53)])
    if not recipe.aggregated or recipe.aggregated.parallel.nodes > 1:
        let(workers, workers, LISTENING)  # NIXL's, torch's and NCCL's data ports are chosen at run time
    engines = workers or [front]
    if recipe.model.huggingface or recipe.model.s3 or any(each.huggingface for each in recipe.model.adapters):
        let(engines, ["internet"], [("TCP", 443)])
    if any(spec.kv_tiers and spec.kv_tiers.managed for spec in recipe.roles().values()):
        # HyperPod's daemon is at the machine's own address, which a policy cannot name: at any of a VPC.
        vpc = [actor.name for actor in everybody if actor.address.startswith("10.")]
        others = [name for name in vpc if name not in ("gateway", *engines) and not name.startswith("neighbour")]
        let(engines, others, [("TCP", MANAGED_TIER_PORT)])
    if recipe.model.s3:  # the rights to read it come from EKS' agent
        let(engines, ["pod identity"], [("TCP", 80)])
    return table


def flows(objects: Sequence[Object]) -> Iterator[tuple[Flow, bool]]:
    """Every flow that one of our pods has a part in, and whether it comes about.

    A pod reaches itself whatever policies say, so a kind stands for two of its pods.
    """
    policies = of(objects, "NetworkPolicy")
    everybody = actors(objects)
    roles = {pod.role for pod in pods(objects)}
    for source, destination, (protocol, port) in product(everybody, everybody, LISTENING):
        if {source.name.split()[0], destination.name.split()[0]} & roles:
            passes = allowed(policies, source, destination, protocol, port)
            yield (source.name, destination.name, protocol, port), passes


def problems(
    objects: Sequence[Object], file: RecipeFile, clients_namespace: str = "", monitoring_pods: str = ""
) -> list[str]:
    """Flows that the table has and policies refuse, and the other way round."""
    table = contract(objects, file, clients_namespace, monitoring_pods)
    return [
        f"{' → '.join(flow[:2])}, {flow[2]} {flow[3]}: {'passes' if passes else 'is refused'}"
        for flow, passes in flows(objects)
        if passes != (flow in table)
    ]

"""Who may talk to whom in a rendered fleet: the table, and the actors and ports it is about.

Every pair of actors and every port that is not in the table is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

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
    *(("TCP", port) for port in (AT.gateway_api, AT.gateway_admin, AT.worker_api, AT.worker_admin, EPHEMERAL)),
    ("TCP", AT.data_parallel),
    ("UDP", 53),
    ("UDP", EPHEMERAL),
]
MONITORING = "monitoring"  # the namespace whose pods may read metrics


def actors(objects: Sequence[Object]) -> list[Actor]:
    """One pod of each role (and one that does not lead, where there are such), and the world around."""
    every = [pod for pod in pods(objects) if pod.role]
    kinds: dict[tuple[str, bool], Pod] = {(pod.role, pod.leads): pod for pod in every}
    ours = every[0].namespace
    labels = {each["metadata"]["name"]: each["metadata"].get("labels", {}) for each in of(objects, "Namespace")}
    made = []
    for number, ((role, leads), pod) in enumerate(kinds.items()):
        called = role if leads else f"{role} follower"
        made.append(
            Actor(called, f"10.0.1.{number}", ours, _labels(ours) | labels.get(ours, {}), pod.labels, ports(pod))
        )
    return [
        *made,
        Actor("client", "10.0.2.1", "shop", _labels("shop"), {"app": "shop"}),
        Actor("neighbour", "10.0.2.2", ours, _labels(ours), {"app": "other"}),
        Actor("monitoring", "10.0.2.3", MONITORING, _labels(MONITORING), {"app.kubernetes.io/name": "prometheus"}),
        Actor("dns", "10.0.2.4", "kube-system", _labels("kube-system"), {"k8s-app": "kube-dns"}, {"dns": 53}),
        Actor("API server", "10.0.3.1"),
        Actor("metadata", "169.254.169.254"),
        Actor("internet", "203.0.113.9"),
    ]


def _labels(namespace: str) -> dict[str, str]:
    return {"kubernetes.io/metadata.name": namespace}


def contract(objects: Sequence[Object], file: RecipeFile) -> set[Flow]:
    """The table."""
    recipe = file.recipe
    names = [actor.name for actor in actors(objects)]
    workers = [each for each in names if each.split()[0] in recipe.roles()]
    table: set[Flow] = set()

    def let(sources: Sequence[str], destinations: Sequence[str], protocol: str, *numbers: int) -> None:
        table.update(product(sources, destinations, [protocol], numbers))

    let([each for each in names if each not in ("gateway", *workers)], ["gateway"], "TCP", AT.gateway_api)
    let(["gateway"], workers, "TCP", AT.worker_api, AT.worker_admin)
    let(["monitoring"], ["gateway"], "TCP", AT.gateway_admin)
    let(["monitoring"], workers, "TCP", AT.worker_api, AT.worker_admin)
    let(["gateway", *workers], ["dns"], "TCP", 53)
    let(["gateway", *workers], ["dns"], "UDP", 53)
    if not recipe.aggregated:
        ranks = max(spec.parallel.data for spec in recipe.roles().values())
        channels = [port for _, port in LISTENING if AT.side_channel <= port < AT.side_channel + ranks]
        let(workers, workers, "TCP", *channels, EPHEMERAL)
    if any(spec.parallel.nodes > 1 for spec in recipe.roles().values()):
        let(workers, workers, "TCP", AT.data_parallel, EPHEMERAL)  # parts of one worker find each other
    if recipe.model.huggingface or recipe.model.s3 or any(each.huggingface for each in recipe.model.adapters):
        let(workers, ["internet"], "TCP", 443)
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


def problems(objects: Sequence[Object], file: RecipeFile) -> list[str]:
    """Flows that the table has and policies refuse, and the other way round."""
    table = contract(objects, file)
    return [
        f"{' → '.join(flow[:2])}, {flow[2]} {flow[3]}: {'passes' if passes else 'is refused'}"
        for flow, passes in flows(objects)
        if passes != (flow in table)
    ]

"""Who may talk to whom under llm-d: the table, and nothing beside it."""

from __future__ import annotations

from itertools import product

import pytest

from tests.deploy import flows_contract, objects, objects_recipes, objects_rendered
from tests.deploy.flows import Actor, allowed
from tests.deploy.llm_d_rendered import made, names, rendered

PORTS = (443, 5557, 5558, 8000, 8080, 8081, 8100, 8300, 9002, 9090)
EDGE = {"kubernetes.io/metadata.name": "edge"}
PROXY = Actor("proxy", "10.0.4.1", "edge", EDGE, {"gateway.networking.k8s.io/gateway-name": "inference"})
OTHER = Actor("other gateway's proxy", "10.0.4.2", "edge", EDGE, {"gateway.networking.k8s.io/gateway-name": "web"})
ROLES = ("prefill", "decode", "aggregated", "gateway")


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("route", ["istio", "nginx"])
def test_only_what_llm_d_needs_is_open(name: str, route: str) -> None:
    ours = rendered(name, f"route={route}", "front=both")
    (deployment,) = objects.of(made(name, f"route={route}"), "Deployment")
    world = flows_contract.actors(ours)
    engines = next(actor for actor in world if actor.namespace.endswith("-engines"))
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    picker = Actor("picker", "10.0.4.3", engines.namespace, engines.namespace_labels, labels)
    workers = [actor.name for actor in world if actor.name in ("prefill", "decode", "aggregated")]
    pool = (8100,) if objects_recipes.load(name).recipe.aggregated else (8000, 8100)

    table = {("picker", worker, port) for worker in workers for port in pool}
    table |= {("picker", vpc.name, 443) for vpc in (*world, PROXY, OTHER) if vpc.address.startswith("10.")}
    table |= {(who, "picker", 9090) for who in ("monitoring", "visitor in monitoring")}
    if route == "istio":
        table |= {("proxy", "picker", 9002)} | {("proxy", worker, port) for worker in workers for port in pool}
    else:
        table |= {("proxy", "picker", 8081)}
    everybody_may = not objects_rendered.option(name, "clients_namespace")
    table |= {(proxy.name, "gateway", 8080) for proxy in ((PROXY, OTHER) if everybody_may else (PROXY,))}

    policies = objects.of(ours, "NetworkPolicy")
    everybody = [*world, PROXY, OTHER, picker]
    wrong = []
    for source, destination, port in product(everybody, everybody, PORTS):
        if {source.name, destination.name} & {"picker", "proxy", OTHER.name} and source is not destination:
            if destination.namespace not in ("hyperpd", engines.namespace) and source.name != "picker":
                continue  # where we have no say
            passes = allowed(policies, source, destination, "TCP", port)
            closed = destination.name.split()[0] in ROLES or destination.name.startswith("neighbour in")
            wanted = (source.name, destination.name, port) in table and not (port == 443 and closed)
            if passes != wanted:
                wrong.append(f"{source.name} → {destination.name} {port}: {'passes' if passes else 'is refused'}")
    assert not wrong, "\n".join(wrong)
    (own,) = (policy for policy in policies if policy["metadata"]["name"] == "llm-d-router")
    assert all(rule.get("ports") for rule in own["spec"]["egress"])  # and not only because the other end is closed


@pytest.mark.parametrize("name", names())
def test_what_a_clients_own_header_could_name(name: str) -> None:
    """As the page has it: decode reaches the public internet at 443 where it loads from there, and nowhere else."""
    recipe = objects_recipes.load(name).recipe
    if recipe.aggregated:
        return  # no sidecar, so nobody who reads the header
    ours = rendered(name)
    world = {actor.name: actor for actor in flows_contract.actors(ours)}
    policies = objects.of(ours, "NetworkPolicy")
    open_ = [port for port in PORTS if allowed(policies, world["decode"], world["internet"], "TCP", port)]
    loads = recipe.model.huggingface or recipe.model.s3 or any(one.huggingface for one in recipe.model.adapters)
    assert open_ == ([443] if loads else [])
    assert not any(allowed(policies, world["decode"], world["client"], "TCP", port) for port in PORTS)

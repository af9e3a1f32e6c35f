"""What NetworkPolicies let through: the evaluator by hand-written policies, then every rendered recipe's table."""

from __future__ import annotations

import pytest

from hyperpd import deploy
from tests.deploy import flows_contract, objects_recipes
from tests.deploy.flows import Actor, allowed
from tests.deploy.objects import of
from tests.deploy.objects_rendered import cases, option, rendered, settings

OURS = {"kubernetes.io/metadata.name": "ours"}
WEB = Actor("web", "10.0.0.1", "ours", OURS, {"app": "web"}, {"http": 8080})
DB = Actor("db", "10.0.0.2", "ours", OURS, {"app": "db"}, {"sql": 5432})
OTHER = Actor("other", "10.0.0.3", "theirs", {"kubernetes.io/metadata.name": "theirs"}, {"app": "web"})
OUTSIDE = Actor("outside", "203.0.113.9")


def _policy(**spec):
    return {"kind": "NetworkPolicy", "metadata": {"name": "p", "namespace": "ours"}, "spec": spec}


DENY = _policy(podSelector={}, policyTypes=["Ingress", "Egress"])
FROM_WEB = {"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": "sql"}]}
INTERNET = {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}


@pytest.mark.parametrize(
    ("policies", "source", "destination", "port", "passes"),
    [
        ([], OUTSIDE, DB, 5432, True),
        ([DENY], WEB, DB, 5432, False),
        ([DENY], DB, OUTSIDE, 443, False),
        ([_policy(podSelector={})], WEB, DB, 5432, False),  # no policyTypes: ingress only
        ([_policy(podSelector={})], DB, OUTSIDE, 443, True),
        ([_policy(podSelector={"matchLabels": {"app": "db"}}, ingress=[FROM_WEB])], WEB, DB, 5432, True),
        ([_policy(podSelector={"matchLabels": {"app": "db"}}, ingress=[FROM_WEB])], WEB, DB, 5433, False),
        ([_policy(podSelector={"matchLabels": {"app": "db"}}, ingress=[FROM_WEB])], OTHER, DB, 5432, False),
        ([_policy(podSelector={"matchLabels": {"app": "db"}}, ingress=[{}])], OUTSIDE, DB, 1, True),
        ([DENY, _policy(podSelector={}, egress=[{"to": [INTERNET]}], policyTypes=["Egress"])], DB, OUTSIDE, 443, True),
        ([DENY, _policy(podSelector={}, egress=[{"to": [INTERNET]}], policyTypes=["Egress"])], DB, OTHER, 443, False),
        ([_policy(podSelector={}, ingress=[{"ports": [{"port": 100, "endPort": 200}]}])], WEB, DB, 200, True),
        ([_policy(podSelector={}, ingress=[{"ports": [{"port": 100, "endPort": 200}]}])], WEB, DB, 201, False),
        ([_policy(podSelector={}, ingress=[{"ports": [{"port": 53, "protocol": "UDP"}]}])], WEB, DB, 53, False),
        ([_policy(podSelector={}, ingress=[{"from": [{"namespaceSelector": {}}]}])], OTHER, DB, 1, True),
        ([_policy(podSelector={}, ingress=[{"from": [{"namespaceSelector": {}}]}])], OUTSIDE, DB, 1, False),
    ],
)
def test_a_connection_needs_both_sides(policies, source, destination, port, passes):
    assert allowed(policies, source, destination, "TCP", port) is passes


@pytest.mark.parametrize(("recipe", "platform"), cases())
def test_exactly_the_flows_of_the_table_pass(recipe, platform, record_property):
    objects = rendered(recipe, platform)
    given = {key: option(recipe, key) for key in ("clients_namespace", "monitoring_pods")}
    found = flows_contract.problems(objects, objects_recipes.load(recipe), **given)
    record_property("flows", sum(1 for _ in flows_contract.flows(objects)))
    assert not found, "\n".join(found)


def _problems(change):
    objects = rendered("efa-2p2d", "hyperpod")
    change(objects)
    return flows_contract.problems(objects, objects_recipes.load("efa-2p2d"))


@pytest.mark.parametrize(
    ("recipe", "key", "said"),
    [
        ("efa-aggregated-two-nodes", "clients_namespace", "client → gateway, TCP 8080: passes"),
        ("tcp-1p1d", "monitoring_pods", "visitor in monitoring → prefill, TCP 8100: passes"),
    ],
)
def test_teeth_an_option_that_is_dropped(recipe, key, said):
    """What a rendering does not say of an option, the table still has: it is told the option, not the rendering."""
    file, platform = objects_recipes.load(recipe), "hyperpod"
    given = [each for each in settings(recipe, platform) if not each.startswith(key)]
    objects = [dict(document.body) for document in deploy.render(file, "kubernetes", given).documents]
    wanted = {key: "elsewhere"} if key == "clients_namespace" else {key: option(recipe, key)}
    assert said in flows_contract.problems(objects, file, **wanted)


def test_teeth_without_policies_everything_passes():
    def change(objects):
        objects[:] = [body for body in objects if body["kind"] != "NetworkPolicy"]

    found = _problems(change)
    for flow in ("client → prefill, TCP 8100", "client → gateway, TCP 8081", "gateway → internet, TCP 443"):
        assert f"{flow}: passes" in found


def test_teeth_each_policy_is_needed():
    """Whichever is dropped, the table is not met any more."""
    count = len(of(rendered("efa-2p2d", "hyperpod"), "NetworkPolicy"))
    assert count
    for index in range(count):
        assert _problems(lambda objects, index=index: objects.remove(of(objects, "NetworkPolicy")[index])), index


def test_teeth_each_rule_is_needed():
    """Whichever rule of whichever policy is dropped, a flow of the table is refused."""
    tried = 0
    for number, policy in enumerate(of(rendered("efa-2p2d", "hyperpod"), "NetworkPolicy")):
        for way in ("ingress", "egress"):
            for index in range(len(policy["spec"].get(way) or ())):

                def change(objects, number=number, way=way, index=index):
                    del of(objects, "NetworkPolicy")[number]["spec"][way][index]

                tried += 1
                assert any("is refused" in problem for problem in _problems(change)), (policy["metadata"], way, index)
    assert tried > 5

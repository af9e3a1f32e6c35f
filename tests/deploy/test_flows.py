"""What NetworkPolicies let through: the evaluator by hand-written policies, then every rendered recipe's table."""

from __future__ import annotations

import pytest

from tests.deploy.flows import Actor, allowed

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

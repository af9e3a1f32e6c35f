"""hyperpd review: what it says is what is rendered, written and known; what nobody proved is marked."""

from __future__ import annotations

import copy
import gzip
import json
from datetime import date
from pathlib import Path
from typing import Any

import botocore.session
import moto
import pytest

from hyperpd import deploy
from hyperpd.cluster import encryption, review, rights
from hyperpd.cluster.actions import COMMANDS
from hyperpd.cluster.review_page import markdown
from hyperpd.deploy.kubernetes import network
from hyperpd.deploy.kubernetes.fleet import Fleet
from hyperpd.placement import Ports
from hyperpd.recipe import load
from tests.cluster.files import ACCOUNT, EKS, EKS_FULL, SLURM_FULL, merged, plan, written

TODAY = date(2026, 11, 25)
RECIPE = "gpt-oss-120b-p5en-8p2d"
SETTINGS = ("prometheus=http://prometheus:9090", "cache_folder=/opt/hyperpd/data/models", "image=a.example/b:1")
ON_EKS = merged(EKS, {"recipe": RECIPE, "groups": {"prefill": None, "decode": None}})


@pytest.fixture(scope="module")
def policies() -> list[dict[str, Any]]:
    options = deploy.options(deploy.target("kubernetes"), SETTINGS)
    return [dict(one.body) for one in network.policies(Fleet(load(RECIPE), options)) if isinstance(one.body, dict)]


def reviewed(document: dict[str, Any], policies: Any = (), **change: Any) -> review.Review:
    made = plan(document, **change)
    recipe = load(made.spec.recipe).recipe if made.spec.recipe else None
    return review.review(made, recipe, policies, TODAY)


def verdicts(found: review.Review) -> dict[str, str]:
    return {one.what: one.verdict for one in found.claims}


def test_which_types_encrypt_is_what_ec2_says() -> None:
    """Every type that HyperPod takes, as botocore has them."""
    path = Path(moto.__file__).parent / "ec2/resources/instance_types.json.gz"
    known = json.loads(gzip.decompress(path.read_bytes()))
    shape: Any = botocore.session.get_session().get_service_model("sagemaker").shape_for("ClusterInstanceType")
    types = [str(one) for one in shape.enum]
    found = {one: encryption.in_transit(one) for one in types}
    assert found == {
        one: known[one[3:]]["NetworkInfo"]["EncryptionInTransitSupported"] if one[3:] in known else None
        for one in types
    }
    assert [one for one, said in found.items() if said is None] == ["ml.p6e-gb200.36xlarge"]


def test_flows_are_those_of_the_network_policies(policies: list[dict[str, Any]]) -> None:
    found = reviewed(ON_EKS, policies)
    rules = [
        tuple(f"{port['port']}/{port['protocol']}" for port in rule.get("ports", ())) or ("any",)
        for one in policies
        for key in ("ingress", "egress")
        for rule in one["spec"].get(key, ())
    ]
    opened = [flow for flow in review.fleet(policies) if flow.ports != ("none",)]
    assert [flow.ports for flow in opened] == rules
    assert set(review.fleet(policies)) <= set(found.flows)
    closed = [flow.target for flow in found.flows if flow.ports == ("none",)]
    assert closed == ["hyperpd-engines: every pod", "hyperpd: every pod"]
    clients = next(flow for flow in found.flows if flow.ports == (f"{Ports().gateway_api}/TCP",))
    assert (clients.source, clients.target, clients.what) == ("anybody", "hyperpd: gateway", "gateway: API")
    more = copy.deepcopy(policies)
    more[-1]["spec"]["ingress"].append({"ports": [{"protocol": "TCP", "port": 9999}]})
    (new,) = set(review.fleet(more)) - set(review.fleet(policies))
    assert (new.source, new.ports, new.what) == ("anybody", ("9999/TCP",), "port 9999")


def test_what_is_not_encrypted_is_said_plainly(policies: list[dict[str, Any]]) -> None:
    made = verdicts(reviewed(ON_EKS, policies))
    assert made["TCP and UDP of gateway (ml.c6i.2xlarge) to other nodes"] == "encrypted"
    found = reviewed(ON_EKS, policies, groups={"gateway": {"instance_type": "ml.c5.2xlarge"}})
    said = verdicts(found)
    assert said["TCP and UDP of prefill (ml.p5en.48xlarge) to other nodes"] == "encrypted"
    assert said["TCP and UDP of gateway (ml.c5.2xlarge) to other nodes"] == "NOT encrypted"
    assert said["KV blocks from prefill to decode, by hyperpd, NIXL and the engine"] == "NOT encrypted"
    assert said["KV blocks over EFA, below hyperpd"] == "unknown (unverified)"
    assert said["requests and answers between clients, gateway and workers"] == "NOT encrypted"
    page = markdown(found)
    plain, _, rest = page.partition("## Unverified")
    for one in found.claims:
        assert (f"- {one.what}: " in plain) == (one.encrypted is False)
        assert (f"- {one.what}: " in rest) == (not one.proof)
        assert f"| {one.what} | {one.verdict} |" in page
    document = found.document()
    assert "KV blocks over EFA, below hyperpd" in document["unverified"]
    assert "TCP and UDP of gateway (ml.c5.2xlarge) to other nodes" in document["not_encrypted"]
    assert json.loads(json.dumps(document)) == json.loads(json.dumps(document, default=str))


def test_kv_over_tcp_is_as_the_types_are() -> None:
    for kind, wanted in (("ml.p5.48xlarge", "encrypted"), ("ml.m5.4xlarge", "NOT encrypted")):
        made = plan(EKS, groups={name: {"instance_type": kind} for name in ("prefill", "decode")})
        assert [one.verdict for one in encryption.fabric(made, "tcp")][1] == wanted
    made = plan(EKS, groups={"prefill": {"instance_type": "ml.p6e-gb200.36xlarge"}})
    assert [one.verdict for one in encryption.fabric(made, "tcp")][1] == "unknown (unverified)"
    assert [one.verdict for one in encryption.fabric(made, "local")] == ["NOT encrypted"]


def test_keys_volumes_file_systems_and_tiers() -> None:
    by = {one.what: f"{one.verdict}: {one.by}" for one in encryption.at_rest(plan(EKS_FULL))}
    assert by["root volume of prefill"] == "encrypted: KMS key alias/nodes"
    assert by["second volume of prefill"] == "encrypted: KMS key alias/nodes"
    assert by["root volume of decode"].startswith("encrypted: a key that AWS owns")
    assert [one for one in by if "Lustre" in one and by[one].startswith("encrypted: in transit")]
    assert [one for one in by if "OpenZFS" in one and by[one].startswith("unknown (unverified)")]
    lent = {one.what: one.verdict for one in encryption.at_rest(plan(EKS, bucket="sagemaker-our-files"))}
    assert lent["requests to s3://sagemaker-our-files"] == "encrypted (unverified)"
    made = {one.what: one.verdict for one in encryption.at_rest(plan(EKS))}
    assert [made[one] for one in made if one.startswith("requests to s3://sagemaker-hyperpd-")] == ["encrypted"]
    said = [one.verdict for one in encryption.tiers("prefill", True, "/data", True)]
    assert said == ["NOT encrypted", "unknown (unverified)", "unknown (unverified)"]


def test_slurm_has_no_policies_and_says_so_by_its_ports() -> None:
    found = reviewed(SLURM_FULL)
    at = Ports()
    ports = {port for flow in found.flows for port in flow.ports}
    assert {f"{port}+n/TCP" for port in (at.worker_api, at.worker_admin, at.side_channel, at.kv_events)} <= ports
    assert {f"{at.gateway_api}/TCP", f"{at.gateway_admin}/TCP", "3306/TCP"} <= ports
    services = [one.service for one in found.endpoints]
    assert services.count("secretsmanager") == 1
    assert "eks" not in services


def test_efa_is_spoken_of_where_there_is_some() -> None:
    for kind, there in (("ml.p5en.48xlarge", True), ("ml.g5.2xlarge", False)):
        made = plan(EKS, groups={name: {"instance_type": kind} for name in ("prefill", "decode")})
        assert any("EFA" in flow.what for flow in review.nodes(made)) == there


def test_every_service_of_the_nodes_role_has_its_endpoint(policies: list[dict[str, Any]]) -> None:
    found = reviewed(ON_EKS, policies)
    actions = {action for one in rights.policy(plan(ON_EKS))["Statement"] for action in one["Action"]}
    why = " ".join(one.why for one in found.endpoints)
    assert [one for one in actions if one not in why] == []
    assert [one.service for one in found.endpoints if one.kind == "Gateway"] == ["s3"]
    assert [one.service for one in found.endpoints if not one.proof] == ["ssm, ec2messages", "sts", "eks"]


def test_every_action_of_every_cluster_command_is_there_with_its_why() -> None:
    found = reviewed(EKS)
    assert set(found.callers) == {one for one in COMMANDS if one.startswith("cluster ")}
    page = markdown(found)
    for needed in found.callers.values():
        for one in needed:
            assert f"| {one.action} | {', '.join(one.resources)} | {'; '.join(one.why)} |" in page
    assert "iam:PutRolePolicy" in page
    lent = markdown(reviewed(EKS, role=f"arn:aws:iam::{ACCOUNT}:role/ours"))
    assert "iam:PutRolePolicy" not in lent


def test_as_it_is_typed(hyperpd: Any, tmp_path: Path) -> None:
    path, out = written(tmp_path, ON_EKS, region="us-east-1"), tmp_path / "pack"
    given = ("--account", ACCOUNT, *(word for one in SETTINGS for word in ("--set", one)))
    code, said, _ = hyperpd("review", path, "-o", out, *given)
    assert (code, "review.md" in said) == (0, True)
    page = (out / "review.md").read_text()
    assert page.startswith("# Network and compliance review: pd\n")
    code, said, _ = hyperpd("review", path, *given)
    assert said == page
    assert json.loads(hyperpd("review", path, "--json", *given)[1]) == json.loads((out / "review.json").read_text())
    assert hyperpd("review", path, "--account", "1")[0] == 2
    assert hyperpd("review", tmp_path / "none.yaml")[0] == 2

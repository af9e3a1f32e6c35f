"""Stock hyp 3.12.0 takes a recipe from a hub: init, configure, validate, create; what it posts is what was rendered."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml

from hyperpd import deploy, recipe
from hyperpd.deploy.hub_recipe import objects
from tests.fakes import hub, kubernetes
from tests.hyp.conftest import ROOT, Shell

EXAMPLE = ROOT / "examples" / "hyp-recipe" / "transcript.txt"
IMAGE = "123456789012.dkr.ecr.us-east-2.amazonaws.com/hyperpd:0.1.0"
BUCKET = "s3://sagemaker-recipes/hyperpd"
SET = (f"image={IMAGE}", "instance_type=ml.m5.2xlarge")
NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "node-0", "labels": {"node.kubernetes.io/instance-type": "ml.m5.2xlarge"}},
}
INSTANCE = ("--technique", "hyperpd", "--instance-type", "ml.m5.2xlarge")


@pytest.fixture
def bucket(s3_url: str) -> None:
    keys = {"aws_access_key_id": "stand-in", "aws_secret_access_key": "stand-in"}
    place = {"LocationConstraint": hub.REGION}
    s3 = boto3.client("s3", endpoint_url=s3_url, region_name=hub.REGION, **keys)
    if not s3.list_buckets()["Buckets"]:
        s3.create_bucket(Bucket="sagemaker-recipes", CreateBucketConfiguration=place)


def rendered(name: str, *settings: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(what has to be there before, what hyp is to post)."""
    file, wanted = recipe.load(name), dict(one.split("=", 1) for one in (*SET, f"bucket={BUCKET}", *settings))
    given = [f"{key}={value}" for key, value in wanted.items()]
    options = deploy.options(deploy.target("hub_recipe"), given)
    before, posted = objects.documents(file, options)
    return [dict(one.body) for one in before], [dict(one.body) for one in posted]  # type: ignore[call-overload]


def apply(store: kubernetes.Store, bodies: Iterable[dict[str, Any]]) -> None:
    """What kubectl apply does with 0-before.yaml."""
    for body in bodies:
        namespace = body["metadata"].get("namespace")
        room = f"/namespaces/{namespace}" if namespace else ""
        store.create(kubernetes.place(f"/api/v1{room}/{body['kind'].lower()}s"), body)
    store.posted.clear()


def compared(path: Path, transcript: str) -> None:
    """Hold an example to what was printed; one that is missing is written, and its test fails once."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(transcript)
        pytest.fail(f"{path} is written: look at it, then commit it")
    assert transcript == path.read_text(), f"delete {path} to have it written anew"


def published(shell: Shell, name: str, *argv: str) -> str:
    """The ARN that hyperpd hub publish says."""
    settings = [word for one in SET for word in ("--set", one)]
    said = shell.run("hyperpd", "hub", "publish", name, "--bucket", BUCKET, "--hub", "team", *settings, *argv)
    return next(line.partition(": ")[2] for line in said.splitlines() if line.startswith("import_hub_content"))


@pytest.mark.usefixtures("bucket")
def test_what_hyp_posts_is_what_was_rendered(
    shell: Shell, store: kubernetes.Store, private_hub: hub.Hub, tmp_path: Path
) -> None:
    before, wanted = rendered("tiny-cpu-1p1d")
    arn = published(shell, "tiny-cpu-1p1d")
    assert [one["HubContentName"] for one in private_hub.imports] == ["tiny-cpu-1p1d"]
    said = shell.run("hyp", "init", "hyp-recipe-job", "tiny-cpu-1p1d", "--model-id", arn, *INSTANCE)
    assert "initialized successfully" in said
    apply(store, [*before, NODE])
    fleet = tmp_path / "tiny-cpu-1p1d"
    assert "Configuration validated successfully" in shell.run("hyp", "validate", cwd=fleet)
    assert "Successfully submitted to HyperPod" in shell.run("hyp", "create", cwd=fleet)
    assert store.posted == wanted
    assert store.refused == []
    assert {body["kind"] for body in store.posted} >= {"ConfigMap", "Service", "LeaderWorkerSet", "NetworkPolicy"}
    (run,) = (fleet / "run").iterdir()
    assert list(yaml.safe_load_all((run / "k8s.yaml").read_text())) == wanted
    transcript = shell.transcript()
    assert "not found in the current cluster" not in transcript
    compared(EXAMPLE, transcript)


@pytest.mark.usefixtures("bucket")
def test_configure_changes_what_was_offered_and_holds_bounds(
    shell: Shell, store: kubernetes.Store, tmp_path: Path
) -> None:
    arn = published(shell, "tiny-cpu-1p1d", "--version", "1.0.1", "--type", "JsonDoc")
    shell.run("hyp", "init", "hyp-recipe-job", "fleet", "--model-id", arn, *INSTANCE)
    fleet = tmp_path / "fleet"
    assert "exceeds the maximum" in shell.run("hyp", "configure", "--decode-replicas", "2000", cwd=fleet, expect=1)
    shell.run("hyp", "configure", "--decode-replicas", "3", "--namespace", "team-a", "--image", "own:2", cwd=fleet)
    config = fleet / "config.yaml"
    config.write_text(config.read_text().replace("decode_replicas: 3", "decode_replicas: 2000"))
    assert "exceeds the maximum" in shell.run("hyp", "validate", cwd=fleet, expect=1)
    config.write_text(config.read_text().replace("decode_replicas: 2000", "decode_replicas: 3"))
    assert "not found in namespace" in shell.run("hyp", "create", cwd=fleet, expect=1)  # no namespaces yet
    before, wanted = rendered("tiny-cpu-1p1d", "namespace=team-a", "image=own:2")
    apply(store, before)
    shell.run("hyp", "create", cwd=fleet)
    for body in wanted:
        if body["metadata"]["name"] == "decode-groups":
            body["spec"]["replicas"] = 3
    assert store.posted == wanted


def test_an_inference_endpoint_of_a_hub_keeps_its_pd_spec(
    shell: Shell, store: kubernetes.Store, tmp_path: Path
) -> None:
    """The recipe route posts objects unfiltered: pdSpec arrives, which hyp's own endpoint commands strip."""
    settings = ["prometheus=https://aps-workspaces.us-east-2.amazonaws.com/workspaces/ws-0123"]
    rendering = deploy.render(recipe.load("llama-3.3-70b-p5en-4p2d"), "inference_operator", settings)
    bodies: list[Any] = [one.body for one in rendering.documents]
    (endpoint,) = [body for body in bodies if body["kind"] == "InferenceEndpointConfig"]
    assert endpoint["spec"]["pdSpec"]["prefillSpec"]["replicas"] == 4
    place = endpoint["metadata"]["namespace"]
    apply(store, [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": place}}])
    crafted = tmp_path / "crafted"
    crafted.mkdir()
    crafted.joinpath(".override_spec.json").write_text(json.dumps({"replicas": {"type": "integer", "default": 2}}))
    crafted.joinpath("config.yaml").write_text("# template: hyp-recipe-job\nreplicas: 2\n")
    crafted.joinpath(".hyp").write_text("hyp-recipe-job")
    crafted.joinpath("k8s.jinja").write_text(yaml.safe_dump(endpoint))
    shell.run("hyp", "create", cwd=crafted)
    assert store.posted == [endpoint]


def test_kinds_that_hyp_cannot_post_are_the_ones_we_say(shell: Shell, store: kubernetes.Store, tmp_path: Path) -> None:
    """The reason for LeaderWorkerSets and for 0-before.yaml, seen."""
    crafted = tmp_path / "crafted"
    crafted.mkdir()
    crafted.joinpath(".override_spec.json").write_text("{}")
    crafted.joinpath("config.yaml").write_text("# template: hyp-recipe-job\n")
    for version, kind in (("apps/v1", "Deployment"), ("v1", "ServiceAccount"), ("v1", "Namespace")):
        body = {"apiVersion": version, "kind": kind, "metadata": {"name": "a", "namespace": "default"}}
        crafted.joinpath("k8s.jinja").write_text(yaml.safe_dump(body))
        shell.run("hyp", "create", cwd=crafted, expect=1)
    assert [line.split(":")[0] for line in store.refused] == [
        "POST /apis//apps%2Fv1/namespaces/default/deployments",
        "POST /apis//v1/namespaces/default/serviceaccounts",
        "POST /apis//v1/namespaces/default/namespaces",
    ]
    assert store.posted == []


def test_a_hub_on_this_machine_is_enough_for_init(shell: Shell, tmp_path: Path) -> None:
    """hyperpd hub serve-local: both words of the hub and of S3, without an account."""
    settings = [word for one in SET for word in ("--set", one)]
    with shell.start("hyperpd", "hub", "serve-local", "tiny-cpu-1p1d", "--port", "0", *settings) as said:
        typed = ""
        for line in said:
            if line.startswith("export "):
                key, _, value = line.removeprefix("export ").strip().partition("=")
                shell.environment[key] = value
            if line.strip().startswith("hyp init"):
                typed = line.strip()
            if line.strip() == "hyp create":
                break
        shell.run(*typed.split())
    folder = tmp_path / "tiny-cpu-1p1d"
    assert "validated successfully" in shell.run("hyp", "validate", cwd=folder)
    assert list(yaml.safe_load_all((folder / "k8s.jinja").read_text().replace("{{", "").replace("}}", "")))

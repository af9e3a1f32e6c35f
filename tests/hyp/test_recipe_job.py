"""Stock hyp 3.12.0 takes a recipe from a hub: init, configure, validate, create; what it posts is what was rendered."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from hyperpd import deploy, recipe
from hyperpd.deploy.hub_recipe import objects
from tests.deploy.hyp_plurals import plural
from tests.fakes import hub, kubernetes
from tests.hyp.conftest import BUCKET, ROOT, Shell, apply, prepare, published

EXAMPLES = ROOT / "examples" / "hyp-recipe"
IMAGE = "123456789012.dkr.ecr.us-east-2.amazonaws.com/hyperpd:0.1.0"
SET = (f"image={IMAGE}", "instance_type=ml.m5.2xlarge")
NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "node-0", "labels": {"node.kubernetes.io/instance-type": "ml.m5.2xlarge"}},
}
ENGINES = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "hyperpd-engines"}}  # a front's
AMP = "https://aps-workspaces.us-east-2.amazonaws.com/workspaces/ws-0123"
INSTANCE = ("--technique", "hyperpd", "--instance-type", "ml.m5.2xlarge")


def rendered(name: str, *settings: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(what has to be there before, what hyp is to post)."""
    file, wanted = recipe.load(name), dict(one.split("=", 1) for one in (*SET, f"bucket={BUCKET}", *settings))
    given = [f"{key}={value}" for key, value in wanted.items()]
    options = deploy.options(deploy.target("hub_recipe"), given)
    before, posted = objects.documents(file, options)
    return [dict(one.body) for one in before], [dict(one.body) for one in posted]  # type: ignore[call-overload]


def compared(path: Path, transcript: str) -> None:
    """Hold an example to what was printed; one that is missing is written, and its test fails once."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(transcript)
        pytest.fail(f"{path} is written: look at it, then commit it")
    assert transcript == path.read_text(), f"delete {path} to have it written anew"


@pytest.mark.usefixtures("bucket")
def test_what_hyp_posts_is_what_was_rendered(
    shell: Shell, store: kubernetes.Store, private_hub: hub.Hub, tmp_path: Path
) -> None:
    before, wanted = rendered("tiny-cpu-1p1d")
    arn = published(shell, "tiny-cpu-1p1d", SET)
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
    compared(EXAMPLES / "transcript.txt", transcript)


@pytest.mark.usefixtures("bucket")
def test_configure_changes_what_was_offered_and_holds_bounds(
    shell: Shell, store: kubernetes.Store, tmp_path: Path
) -> None:
    arn = published(shell, "tiny-cpu-1p1d", SET, "--version", "1.0.1", "--type", "JsonDoc")
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


def files(folder: Path) -> list[dict[str, Any]]:
    """The objects in a folder that hyperpd render wrote, in the order in which they are applied."""
    return [body for path in sorted(folder.glob("*.yaml")) for body in yaml.safe_load_all(path.read_text())]


@pytest.mark.usefixtures("bucket")
@pytest.mark.parametrize(
    ("name", "options", "machine"),
    [
        ("llama-3.3-70b-p5en-4p2d", [f"prometheus={AMP}", "hf_token_secret=hub", "name=llama"], "ml.p5en.48xlarge"),
        (
            "llama-3.3-70b-p5en-4p2d",
            [f"prometheus={AMP}", "hf_token_secret=hub", "own_image=true", f"image={IMAGE}"],
            "ml.p5en.48xlarge",
        ),
        ("qwen3-32b-p5-8xtp2", [], "ml.p5.48xlarge"),
        ("tiny-cpu-1p1d", ["front=true", "front_instance_type=ml.m5.2xlarge", f"image={IMAGE}"], "ml.m5.2xlarge"),
    ],
    ids=["pdSpec", "pdSpec-own-image", "aggregated", "front"],
)
def test_what_the_operator_gets_is_what_its_own_target_renders(
    name: str, options: list[str], machine: str, shell: Shell, store: kubernetes.Store, tmp_path: Path, request: Any
) -> None:
    """InferenceEndpointConfig, pdSpec and all, by hyp's recipe route; hyp's own endpoint commands strip pdSpec."""
    given = [word for one in options for word in ("--set", one)]
    shell.run("hyperpd", "render", name, "--target", "inference_operator", *given, "--out", "wanted")
    wanted = files(tmp_path / "wanted")
    by_hub = ["objects=inference_operator", *options]
    arn = published(shell, name, by_hub)
    before = prepare(store, name, by_hub)
    machines = {"name": "node-0", "labels": {"node.kubernetes.io/instance-type": machine}}
    apply(store, [ENGINES, {**NODE, "metadata": machines}])
    asked = ("--model-id", arn, "--technique", "hyperpd", "--instance-type", machine)
    shell.run("hyp", "init", "hyp-recipe-job", "endpoint", *asked)
    shell.run("hyp", "create", cwd=tmp_path / "endpoint")
    assert [*before, *store.posted] == wanted
    if request.node.callspec.id == "pdSpec":
        compared(EXAMPLES / "pdspec.txt", shell.transcript())
    assert ("pdSpec" in store.posted[-1]["spec"]) == ("pdSpec" in request.node.callspec.id)


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


def test_kinds_have_the_plurals_that_hyp_gives_them(shell: Shell) -> None:
    """Of every kind that we render, also those that no recipe here has."""
    kinds = [one.kind for one in kubernetes.RESOURCES]
    code = f"from sagemaker.hyperpod.cli import recipe_utils as r; print(*map(r._kind_to_plural, {kinds}))"
    argv = [str(shell.hyp.parent / "python"), "-W", "ignore", "-c", code]
    said = subprocess.run(argv, env=shell.environment, capture_output=True, text=True, check=True).stdout
    assert said.split() == [plural(kind) for kind in kinds] == [one.plural for one in kubernetes.RESOURCES]


def test_a_hub_on_this_machine_is_enough_for_init(shell: Shell, tmp_path: Path) -> None:
    """hyperpd hub serve-local: both words of the hub and of S3, without an account."""
    settings = [word for one in SET for word in ("--set", one)]
    with shell.start("hyperpd", "hub", "serve-local", "tiny-cpu-1p1d", "--port", "0", *settings) as said:
        typed = ""
        for line in said:
            if " hyp init " in line:
                given, _, typed = line.strip().partition(" hyp init ")
                shell.environment |= dict(word.split("=", 1) for word in given.split())
            if line.strip() == "hyp create":
                break
        shell.run("hyp", "init", *typed.split())
    folder = tmp_path / "tiny-cpu-1p1d"
    assert "validated successfully" in shell.run("hyp", "validate", cwd=folder)
    assert list(yaml.safe_load_all((folder / "k8s.jinja").read_text().replace("{{", "").replace("}}", "")))

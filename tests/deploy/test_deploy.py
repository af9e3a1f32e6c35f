"""hyperpd deploy against the stand-in of an API server: plan, apply, faults half-way, revisions, scaling, removal."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hyperpd import recipe
from hyperpd.cluster.aws import Aws
from hyperpd.deploy import revision, rollout
from hyperpd.deploy.deployment import Deployment, Place, deploy, want_of
from hyperpd.deploy.kubernetes.fleet import COMPONENT
from hyperpd.deploy.progress import Seen
from hyperpd.deploy.wanted import want
from hyperpd.errors import CloudError, NotReady, RecipeError
from tests.deploy.stage import ANSWER, HOME, NAME, SETTINGS, Stage, altered, deployed, stage
from tests.fakes.kubernetes.controllers import Controllers
from tests.fakes.kubernetes.pods import Unschedulable, image_pull_back_off

ENDPOINT = "gpt-oss-120b-p5en-4xtp4"
ROLES = ("prefill", "decode")


@pytest.fixture
def here() -> Iterator[Stage]:
    with stage() as found:
        yield found


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause is waited for."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


@pytest.fixture
def changed(tmp_path: Path) -> Path:
    return altered(tmp_path)


def test_from_nothing_to_an_answer() -> None:
    with stage(schemas=True) as here:
        _from_nothing_to_an_answer(here)


def _from_nothing_to_an_answer(here: Stage) -> None:
    told: list[object] = []
    found = deployed(here, progress=told.append)
    assert found.url == "http://gateway.hyperpd.svc.cluster.local:8080"
    ((path, body),) = here.asked
    assert path == "/v1/chat/completions"
    assert body["messages"]
    assert "the gateway has answered a request" in [getattr(one, "text", "") for one in told]
    (one,) = found.history()
    assert (one.number, one.state, one.by, one.digest) == (1, "ready", "stand-in", recipe.load(NAME).digest)
    assert one.recipe.encode() == recipe.load(NAME).path.read_bytes()
    status = found.status()
    assert [(part.role, part.ready, part.wanted) for part in status.parts] == [
        ("prefill", 1, 1),
        ("decode", 1, 1),
        ("gateway", 2, 2),
    ]
    assert (status.ready, status.causes) == (True, ())


@pytest.fixture
def played(here: Stage, monkeypatch: pytest.MonkeyPatch) -> Controllers:
    """Controllers, scheduler and operator, who work while hyperpd waits."""
    here.controllers = Controllers(here.store)
    monkeypatch.setattr(time, "sleep", lambda seconds: here.controllers and here.controllers.step())
    return here.controllers


def test_pods_come_up_and_drain(here: Stage, played: Controllers) -> None:
    told: list[Any] = []
    found = deployed(here, progress=told.append)
    lines = [one.line() for one in told if isinstance(one, Seen)]
    assert lines[0] == "prefill 0/1 ready, decode 0/1 ready, gateway 0/2 ready"
    assert lines[-1] == "prefill 1/1 ready, decode 1/1 ready, gateway 2/2 ready"
    found.scale({"decode": 2})
    assert [len(here.api().list("Pod", HOME, {"app.kubernetes.io/component": role})) for role in ROLES] == [1, 2]
    played.linger(*(one["metadata"]["name"] for one in here.all("Pod")))
    with pytest.raises(NotReady, match=r"not gone within 0 s: Pod decode-.* in hyperpd-engines"):
        found.delete(timeout_s=0)
    played.linger()
    found.delete()
    assert {name for name in here.names() if not name.startswith("Event")} == set()


def test_what_holds_pods_up_is_explained(here: Stage, played: Controllers) -> None:
    played.script(Unschedulable("0/4 nodes are available: 4 Insufficient nvidia.com/gpu."), {COMPONENT: "prefill"})
    played.script(image_pull_back_off("example.com/hyperpd:1"), {COMPONENT: "decode"})
    deployed(here, wait=False)
    played.settle()
    with pytest.raises(NotReady) as why:
        deployed(here, timeout_s=0)
    said = str(why.value)
    assert "not ready within 0 s: prefill 0/1 ready, decode 0/1 ready" in said
    assert "nvidia.com/gpu" in said
    assert "example.com/hyperpd:1" in said


def test_the_operators_endpoint(here: Stage, played: Controllers, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def invoke(aws: Aws, service: str, operation: str, **sent: Any) -> dict[str, Any]:
        asked.append((service, operation, sent["EndpointName"]))
        return {"Body": io.BytesIO(json.dumps(ANSWER).encode())}

    monkeypatch.setattr(Aws, "call", invoke)
    found = deploy(ENDPOINT, here.api(), target="inference_operator")
    assert asked == [("sagemaker-runtime", "invoke_endpoint", found.endpoint)]
    assert found.revision.home == "hyperpd-endpoint"
    assert found.invoke(Place(region="us-east-2")) == (
        f"hyperpd invoke --endpoint {found.endpoint} --region us-east-2 --chat Hello"
    )
    (pod,) = here.all("Pod")[:1]
    meta, container = pod["metadata"], pod["spec"]["containers"][0]["name"]
    here.store.logs[meta["namespace"], meta["name"], container] = ["served"]
    assert [line.text for line in found.logs("aggregated")].count("served") == 1
    played.endpoints.failing[found.endpoint or ""] = "model weights are not to be had"
    played.settle()
    with pytest.raises(NotReady, match=r"failed: endpoint 0/1 ready \(DeploymentFailed.*weights are not to be had"):
        deploy(ENDPOINT, here.api(), target="inference_operator")


def test_deployed_again_nothing_changes(here: Stage) -> None:
    deployed(here)
    before, api = here.store.version, here.api()
    deploy(NAME, api, settings=SETTINGS)
    assert (here.store.version, here.gate.changes) == (before, [])


def test_a_changed_recipe_is_a_revision_and_what_it_leaves_behind_goes(here: Stage, changed: Path) -> None:
    deployed(here)
    wanted = want(recipe.load(changed), "kubernetes", SETTINGS)
    planned = rollout.plan(here.api(), wanted)
    what = {str(one.ref): one for one in planned.changes}
    old = f"ConfigMap recipe-{recipe.load(NAME).digest[:12]} in hyperpd"
    assert what[old].what == "deleted"
    assert what["Service gateway in hyperpd"].what == "unchanged"
    template = "spec.template.metadata.annotations.[hyperpd.io/recipe-digest]"
    assert template in [field.path for field in what["Deployment decode in hyperpd-engines"].fields]
    assert here.gate.changes == []  # a plan changes nothing
    found = deployed(here, changed)
    applied = [line for line in here.gate.changes if line.startswith("PATCH")]
    different = [one for one in planned.changes if one.what in ("created", "changed")]
    assert len(applied) == len(different) + 2  # and the revision's two states
    assert [one.number for one in found.history()] == [1, 2]
    assert old.replace("ConfigMap ", "").split(" in ")[0] not in "".join(here.names())


def test_back_to_an_earlier_revision(here: Stage, changed: Path) -> None:
    first = deployed(here)
    deployed(here, changed)
    planned = rollout.plan(here.api(), want_of(first.revision))
    rollout.apply(here.api(), planned)
    last = revision.history(here.api(), HOME)[-1]
    assert (last.number, last.digest, last.objects) == (3, first.revision.digest, first.revision.objects)


def test_a_refusal_in_the_plan_changes_nothing_and_names_all(here: Stage) -> None:
    deployed(here)
    here.store.admission.webhooks["limits.example.com"] = lambda verb, at, body: (
        "too many" if at.resource.kind == "Deployment" else None
    )
    before = here.store.version
    with pytest.raises(CloudError, match="would refuse 3 objects; nothing was changed") as refused:
        deployed(here, NAME, "privileged=true")
    assert str(refused.value).count('admission webhook "limits.example.com" denied the request: too many') == 3
    assert here.store.version == before


def test_a_field_that_somebody_else_set_is_not_taken_without_force(here: Stage) -> None:
    deployed(here)
    api = here.api()
    place = f"/apis/apps/v1/namespaces/{HOME}/deployments/decode?fieldManager=kubectl&force=true"
    body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "decode"}, "spec": {"replicas": 4}}
    headers = {"Content-Type": "application/apply-patch+yaml"}
    assert api._client.patch(place, content=json.dumps(body), headers=headers).status_code == 200
    with pytest.raises(CloudError, match=r'(?s)conflict.*"kubectl".*--force takes them over'):
        deployed(here)
    deployed(here, force=True)
    found = here.api().get("Deployment", HOME, "decode")
    assert found
    assert found["spec"]["replicas"] == 1


def test_a_first_deployment_refused_half_way_is_taken_back(here: Stage) -> None:
    here.store.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "hyperpd"}})  # somebody else's
    before = here.names()
    here.store.admission.webhooks["limits.example.com"] = lambda verb, at, body: (
        "no" if at.resource.kind == "Deployment" and at.name == "decode" else None
    )
    with pytest.raises(CloudError, match=r"(?s)denied the request: no.*what this run had made is deleted again") as why:
        deployed(here)
    assert "Deployment prefill in hyperpd-engines" in str(why.value)
    assert here.names() == before
    here.store.admission.webhooks.clear()
    deployed(here).delete()
    assert here.names() == before


def test_an_update_refused_half_way_is_left_and_the_way_back_named(here: Stage, changed: Path) -> None:
    deployed(here)
    hook = {"on": False}
    here.store.admission.webhooks["limits.example.com"] = lambda verb, at, body: (
        "no" if hook["on"] and at.resource.kind == "Deployment" and at.name == "decode" else None
    )
    planned = rollout.plan(here.api(), want(recipe.load(changed), "kubernetes", SETTINGS))
    hook["on"] = True
    with pytest.raises(CloudError, match=f"back, with the same --cluster or --context: hyperpd deploy {NAME} --rev"):
        rollout.apply(here.api(), planned)
    assert [one.state for one in revision.history(here.api(), HOME)] == ["ready", "failed"]
    half, version = Deployment.find(here.api(), NAME), here.store.version
    status = half.status()
    assert (status.ready, "refused half-way" in status.causes[0]) == (False, True)
    with pytest.raises(RecipeError, match=f"2 was refused half-way.*back: hyperpd deploy {NAME} --revision 1"):
        half.scale({"prefill": 2})
    assert here.store.version == version
    hook["on"] = False
    deployed(here, changed)
    assert [one.state for one in revision.history(here.api(), HOME)] == ["ready", "failed", "ready"]


def test_what_was_there_before_is_said_and_never_deleted(here: Stage) -> None:
    here.store.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "hyperpd"}})
    planned = rollout.plan(here.api(), want(recipe.load(NAME), "kubernetes", SETTINGS))
    assert [note for note in planned.notes if "was there before hyperpd" in note]
    for _ in range(2):  # the second time hyperpd has applied it before
        gone = deployed(here).delete()
        assert gone.stays == ("Namespace hyperpd: it was there before hyperpd",)
        assert here.names() == {"Namespace /hyperpd"}


def test_a_missing_monitor_kind_is_left_out_and_said(here: Stage) -> None:
    here.store.absent.add("PodMonitor")
    planned = rollout.plan(here.api(), want(recipe.load(NAME), "kubernetes", SETTINGS))
    lines = [line for line in planned.lines() if line.startswith("leave out")]
    assert len(lines) == 2
    assert "no Prometheus Operator" in lines[0]
    assert deployed(here).status().ready


def test_what_is_not_ready_is_explained_and_left(here: Stage) -> None:
    here.held.add("decode")
    with pytest.raises(NotReady, match=r"(?s)decode 0/1 ready.*status tiny-cpu-1p1d, with the same --cluster or"):
        deployed(here, timeout_s=0)
    assert [one.state for one in revision.history(here.api(), HOME)] == ["applied"]
    here.held.clear()
    found = deployed(here)  # goes on: no second revision
    assert [(one.number, one.state) for one in found.history()] == [(1, "ready")]


def test_a_namespace_that_is_going_is_waited_for(here: Stage) -> None:
    meta = {"name": "hyperpd", "deletionTimestamp": "2026-11-29T00:00:00Z", "finalizers": ["example.com/held"]}
    here.store.put({"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
    with pytest.raises(CloudError, match="Namespace hyperpd is being deleted: wait until it is gone"):
        deployed(here)


def test_scaling_restarts_nobody_and_is_not_undone_silently(here: Stage) -> None:
    found = deployed(here)
    before = here.api().get("Deployment", HOME, "prefill")
    scaled = found.scale({"prefill": 3})
    after = here.api().get("Deployment", HOME, "prefill")
    assert before
    assert after
    assert after["spec"] == before["spec"] | {"replicas": 3}
    assert (scaled.revision.number, dict(scaled.revision.replicas)) == (2, {"prefill": 3})
    planned = rollout.plan(here.api(), want(recipe.load(NAME), "kubernetes", SETTINGS))
    assert [note for note in planned.notes if "prefill goes from 3, which hyperpd scale set, to the recipe's 1" in note]
    assert [str(field) for one in planned.changes for field in one.fields] == ["~ spec.replicas: 3 → 1"]
    assert not planned.again


@pytest.mark.parametrize(
    ("replicas", "said"),
    [({"prefil": 2}, "prefil: there is no such role"), ({"decode": 0}, "decode.replicas"), ({"decode": -1}, "decode")],
)
def test_scaling_that_cannot_be(here: Stage, replicas: dict[str, int], said: str) -> None:
    found, version = deployed(here), here.store.version
    with pytest.raises(RecipeError, match=said):
        found.scale(replicas)
    assert here.store.version == version


def test_an_autoscaled_role_is_not_scaled_by_hand_and_keeps_its_number(here: Stage, tmp_path: Path) -> None:
    path = tmp_path / "scaling.yaml"
    text = recipe.load(NAME).path.read_bytes().replace(b"decode:\n", b"decode:\n  autoscaling: {min: 1, max: 4}\n")
    path.write_bytes(text)
    settings = ("prometheus=http://prometheus.monitoring:9090",)
    found = deployed(here, path, *settings)
    with pytest.raises(RecipeError, match="decode: an autoscaler decides"):
        found.scale({"decode": 2})
    live = here.api().get("Deployment", HOME, "decode")
    assert live
    here.store.put({**live, "spec": {**live["spec"], "replicas": 3}})
    path.write_bytes(text + b"# changed\n")
    deployed(here, path, *settings)
    after = here.api().get("Deployment", HOME, "decode")
    assert after
    assert after["spec"]["replicas"] == 3


def test_the_last_revisions_are_kept(here: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert revision.KEPT == 10
    monkeypatch.setattr(revision, "KEPT", 2)  # ten take their time
    text = recipe.load(NAME).path.read_bytes()
    for number in range(4):  # nobody waits, so nothing is ever ready
        (path := tmp_path / "recipe.yaml").write_bytes(text + b"# %d" % number)
        deployed(here, path, wait=False)
    found = revision.history(here.api(), HOME)
    assert [one.number for one in found] == [3, 4]
    recipes = [name for name in here.names() if name.startswith(f"ConfigMap {HOME}/recipe-")]
    assert {name[-12:] for name in recipes} == {one.digest[:12] for one in found}
    with pytest.raises(RecipeError, match=r"revision 1: .*\n.*it is not kept; the last 2 are: 3, 4"):
        revision.numbered(found, 1)


def test_targets_that_are_not_applied_name_what_does(here: Stage) -> None:
    with pytest.raises(RecipeError, match="then sbatch"):
        deploy(NAME, here.api(), target="slurm")
    assert here.store.requests == []

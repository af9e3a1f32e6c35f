"""hyperpd deploy, status, logs, scale and undeploy as they are typed."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hyperpd.cli.fleet import LocalFleet
from hyperpd.deploy import connect, removal
from tests.deploy.stage import KEY, Stage, knows_key, stage, with_keys

SET = ("--set", "image=example.com/hyperpd:1", "--set", "platform=eks")
NAME = "tiny-cpu-1p1d"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with stage() as found:
        monkeypatch.setattr(connect, "kubeconfig", lambda context, path: found.api())
        yield found


def test_deploy_shows_asks_and_says_how_to_ask(here: Stage, hyperpd: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("click.confirm", lambda question, abort: pytest.fail(question))
    code, out, _ = hyperpd("deploy", NAME, *SET, "--dry-run")
    assert (code, here.gate.changes) == (0, [])
    assert out.startswith(f"target: kubernetes (others: --target)\nto: hyperpd-engines of {here.url}\n")
    assert "create Deployment decode in hyperpd-engines" in out
    asked: list[str] = []
    monkeypatch.setattr("click.confirm", lambda question, abort: asked.append(question))
    forward = "kubectl --namespace hyperpd port-forward service/gateway 8080"
    code, out, _ = hyperpd("deploy", NAME, *SET)
    assert (code, asked) == (0, [f"Deploy {NAME} in hyperpd-engines as revision 1?"])
    assert out.splitlines()[-3:] == [
        "the gateway has answered a request",
        "gateway (inside the cluster): http://gateway.hyperpd.svc.cluster.local:8080",
        f"try: {forward} & hyperpd invoke --url http://127.0.0.1:8080 --chat Hello",
    ]
    code, out, _ = hyperpd("deploy", NAME, *SET)
    assert "nothing differs from revision 1" in out


def test_a_bad_recipe_flag_is_told_before_anybody_is_asked(here: Stage, hyperpd: Run, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("version: 1\nname: wrong\n")
    assert hyperpd("deploy", path, *SET)[0] == 2
    assert hyperpd("deploy", NAME, "--set", "platfrm=eks")[0] == 2
    code, _, err = hyperpd("deploy", NAME, "--target", "console")
    assert (code, "FOLDER/console.md" in err) == (2, True)
    assert here.store.requests == []


def test_json(here: Stage, hyperpd: Run) -> None:
    code, _, err = hyperpd("deploy", NAME, *SET, "--json")
    assert (code, "--json cannot ask: give --yes" in err) == (2, True)
    code, out, _ = hyperpd("deploy", NAME, *SET, "--json", "--yes")
    found = json.loads(out)
    assert (code, found["deployed"], found["state"], found["revision"]) == (0, True, "ready", 1)
    (one,) = json.loads(hyperpd("status", "--context", "c", "--json")[1])
    assert (one["name"], one["ready"], [part["ready"] for part in one["parts"]]) == (NAME, True, [1, 1, 2])
    found = json.loads(hyperpd("deploy", NAME, *SET, "--set", "privileged=true", "--json", "--diff")[1])
    changed = [one["name"] for one in found["changes"] if one["what"] == "changed"]
    assert (found["deployed"], changed) == (False, ["hyperpd-engines", "prefill", "decode"])
    found = json.loads(hyperpd("deploy", NAME, *SET, "--set", "privileged=true", "--json", "--diff", "1")[1])
    assert found["from"]["revision"] == 1
    assert [one["name"] for one in found["changes"] if one["what"] == "changed"] == changed
    found = json.loads(hyperpd("scale", NAME, "prefill=2", "--context", "c", "--json")[1])
    assert (found["sent"], found["replicas"], found["ready"]) == (True, {"prefill": 2}, True)
    found = json.loads(hyperpd("undeploy", NAME, "--context", "c", "--json", "--yes")[1])
    assert (found["removed"], found["stays"]) == (True, [])
    assert here.names() == set()


def test_back(here: Stage, hyperpd: Run) -> None:
    hyperpd("deploy", NAME, *SET, "--yes")
    hyperpd("deploy", NAME, *SET, "--set", "privileged=true", "--yes")
    code, out, err = hyperpd("deploy", NAME, "--revision", 1, "--yes")
    assert (code, err) == (0, "")
    assert "revision 3 in hyperpd-engines is applied" in out
    code, _, err = hyperpd("deploy", NAME, "--revision", 9, "--yes")
    assert (code, "it is not kept; the last 10 are: 1, 2, 3" in err) == (2, True)
    assert "before: revision 2: ready" in hyperpd("status", NAME, "--context", "c")[1]


def test_a_gateway_with_keys_is_asked_with_the_key_of_a_file(here: Stage, hyperpd: Run, tmp_path: Path) -> None:
    here.keys = knows_key(tmp_path)
    file, none, wrong = tmp_path / "key", tmp_path / "empty", tmp_path / "wrong"
    file.write_text(f"{KEY}\n")
    none.write_text("\n")
    wrong.write_text("sk-other")
    deploy = ("deploy", with_keys(tmp_path), *SET, "--set", "keys_secret=keys", "--yes")
    code, _, err = hyperpd(*deploy, "--key-file", none)
    assert (code, f"{none}: 1 problem" in err, "not one API key" in err) == (2, True, True)
    code, _, err = hyperpd("deploy", NAME, *SET, "--yes", "--key-file", file)
    assert (code, "nobody would ask for it" in err, here.store.requests) == (2, True, [])
    code, out, _ = hyperpd(*deploy, "--key-file", file)
    assert (code, "the gateway has answered a request" in out, len(here.asked)) == (0, True, 1)
    scale = ("scale", NAME, "prefill=2", "--context", "c")
    code, out, err = hyperpd(*scale, "--key-file", wrong)
    assert (code, "invalid_api_key" in err, "sk-other" in out + err) == (4, True, False)
    code, out, _ = hyperpd(*scale, "--key-file", file)
    assert (code, "the gateway has answered a request" in out, len(here.asked)) == (0, True, 2)
    code, out, _ = hyperpd(*scale)
    assert (code, "no request was made" in out, len(here.asked)) == (0, True, 2)


def test_status_names_what_holds_it_up(here: Stage, hyperpd: Run) -> None:
    assert "nothing is deployed" in hyperpd("status", "--context", "c")[1]
    hyperpd("deploy", NAME, *SET, "--yes", "--no-wait")
    here.held.add("decode")
    live = here.api().get("Deployment", "hyperpd-engines", "decode")
    assert live
    here.store.put({**live, "status": {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1}})
    here.store.put(_pod("decode-0", waiting={"reason": "ImagePullBackOff", "message": "not found"}))
    code, out, _ = hyperpd("status", NAME, "--context", "c")
    assert (code, "decode 0/1 ready" in out) == (0, True)
    assert "from here: kubectl --context c --namespace hyperpd port-forward service/gateway 8080 & hyperpd" in out
    assert "decode-0" in out
    assert "example.com/hyperpd:1" in out
    code, _, err = hyperpd("status", "other", "--context", "c")
    assert (code, f"it has {NAME} (in hyperpd-engines)" in err) == (2, True)


def test_logs(here: Stage, hyperpd: Run) -> None:
    hyperpd("deploy", NAME, *SET, "--yes")
    code, _, err = hyperpd("logs", NAME, "--role", "decode", "--context", "c")
    assert (code, "no pod of decode in the cluster" in err) == (2, True)
    for number in range(2):
        here.store.put(_pod(f"decode-{number}"))
        here.store.logs["hyperpd-engines", f"decode-{number}", "decode"] = ["one", "two"]
        here.store.previous_logs["hyperpd-engines", f"decode-{number}", "decode"] = ["before"]
    code, out, _ = hyperpd("logs", NAME, "--role", "decode", "--tail", 1, "--context", "c")
    assert (code, out) == (0, "decode-0  two\ndecode-1  two\n")
    code, out, _ = hyperpd("logs", NAME, "--previous", "--json", "--context", "c")
    assert [json.loads(line)["line"] for line in out.splitlines()] == ["before", "before"]
    del here.store.previous_logs["hyperpd-engines", "decode-0", "decode"]  # that one never started again
    code, out, err = hyperpd("logs", NAME, "--previous", "--context", "c")
    assert (code, err, out.splitlines()[1]) == (0, "", "decode-1  before")
    assert out.startswith("decode-0  (no log: read the log of Pod decode-0 in hyperpd-engines: BadRequest: previous")


def test_a_fleet_of_this_machine_is_not_taken_for_a_deployment(
    here: Stage, hyperpd: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyperpd.cli.fleet.fleets", lambda: [LocalFleet(NAME)])
    monkeypatch.setattr(LocalFleet, "running", lambda fleet: True)
    for words in (("logs", NAME), ("scale", NAME, "prefill=2"), ("undeploy", NAME)):
        code, _, err = hyperpd(*words)
        assert (code, "a fleet of this machine: hyperpd status" in err, here.store.requests) == (2, True, [])
    assert "no such deployment" in hyperpd("logs", NAME, "--context", "c")[2]


def test_ctrl_c_says_what_remains(here: Stage, hyperpd: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here.held.add("decode")

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupted)
    key = tmp_path / "key"
    key.write_text(KEY)
    place, wait = ("--yes", "--context", "c"), ("--timeout-min", "9", "--key-file", str(key))
    keyed = ("deploy", str(with_keys(tmp_path)), *SET, "--set", "keys_secret=keys", *place)
    monkeypatch.setattr(removal, "_there", lambda api, at: {"kind": at.kind})  # nothing ever goes
    for words in (
        (*keyed, *wait),
        (*keyed, "--target", "kubernetes", "--set", "clients-namespace=apps", "--force"),
        ("deploy", NAME, "--revision", "1", *place),
        ("scale", NAME, "prefill=2", "--context", "c", *wait),
        ("undeploy", NAME, "--everything", *place, "--timeout-min", "9"),
    ):
        code, _, err = hyperpd(*words)
        told = f"run it again and it goes on where it was: {shlex.join(('hyperpd', *words))}\n"
        assert (code, told in err) == (130, True), err


def test_scale_refuses_wrong_numbers_before_anything_is_asked(here: Stage, hyperpd: Run) -> None:
    hyperpd("deploy", NAME, *SET, "--yes")
    asked = len(here.store.requests)
    code, _, err = hyperpd("scale", NAME, "prefil=3", "decode=two", "gateway=65", "decode", "--context", "c")
    assert (code, len(here.store.requests), err.splitlines()[1:]) == (
        2,
        asked,
        [
            "  - prefil=3: there is no role prefil; did you mean prefill?",
            "  - decode.replicas: Input should be a valid integer, unable to parse string as an integer (found 'two')",
            "  - gateway.replicas: Input should be less than or equal to 64 (found '65')",
            "  - decode: give ROLE=N, as in prefill=3",
        ],
    )
    code, _, err = hyperpd("scale", NAME, "decode=1", "decode=2", "prefill=0", "--context", "c")
    assert (code, len(here.store.requests)) == (2, asked)
    assert "decode=2: decode is given twice" in err
    assert "prefill.replicas: Input should be greater than or equal to 1" in err
    code, _, err = hyperpd("scale", NAME, "aggregated=2", "--context", "c")
    assert (code, "aggregated: there is no such role; it has prefill, decode, gateway" in err) == (2, True)
    assert [line for line in here.gate.changes if "selfsubjectreviews" not in line] == []


def _pod(name: str, waiting: dict[str, str] | None = None) -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": "hyperpd", "app.kubernetes.io/component": "decode"}
    container = {"name": "decode", "image": "example.com/hyperpd:1"}
    state = {"waiting": waiting} if waiting else {"running": {}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "hyperpd-engines", "labels": labels},
        "spec": {"containers": [container]},
        "status": {"phase": "Pending", "containerStatuses": [{**container, "ready": False, "state": state}]},
    }

"""hyperpd cluster, as it is typed."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from hyperpd.cli import main as cli_main
from hyperpd.cluster import Cluster
from hyperpd.cluster.file import parse
from hyperpd.deploy import connect
from hyperpd.errors import CloudError
from tests.cluster.files import EKS, EKS_FULL, SLURM_FULL, written
from tests.fakes import kubernetes
from tests.fakes.hyperpod import Expire, LifecycleFailure, NoCapacity

COMMAND = [sys.executable, "-c", "from hyperpd.cli.main import main; main()", "cluster"]


@pytest.fixture
def hyperpd(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], hurried: None) -> Any:
    """Runs a command within this process; exit status, standard output, standard error."""

    def run(*argv: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hyperpd", "cluster", *map(str, argv)])
        code = 0
        try:
            cli_main.main()
        except SystemExit as done:
            code = int(done.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def in_kubernetes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[kubernetes.Store]:
    """Every EKS cluster is this stand-in of its API server, without nodes."""
    store = kubernetes.Store()
    with kubernetes.serve(store) as url:
        path = kubernetes.kubeconfig(tmp_path / "kubeconfig", url)
        monkeypatch.setattr(connect, "eks", lambda aws, name: connect.kubeconfig(path=path))
        yield store


def test_a_clusters_life(account, hyperpd, in_kubernetes, tmp_path):
    here = account()
    path = written(tmp_path, here.eks(continuous=True))
    code, out, err = hyperpd("plan", path)
    assert (code, err) == (0, "note: continuous: the cluster is InService before its nodes are; wait for the nodes\n")
    assert "prefill  ml.p5.48xlarge  2" in out
    assert re.search(r"hyperpd cluster create makes it, in \d+ calls", out)
    code, out, _ = hyperpd("create", path)
    assert code == 0
    assert "pd is in service with its nodes" in out
    assert re.search(r"^ +\d+ s \(typically 15 to 25 min\)  pd Creating", out, re.MULTILINE)
    assert "event " in out
    assert "cluster pd: there already" in hyperpd("create", path, "--no-wait")[1]
    assert "prefill  prefill  ml.p5.48xlarge  2/2" in hyperpd("status", "pd")[1]
    assert "it is there as the file says" in hyperpd("plan", path)[1]
    nodes = json.loads(hyperpd("nodes", path, "--json")[1])
    assert [node["group"] for node in nodes] == ["prefill", "prefill", "decode"]
    assert "Instance is running." in hyperpd("events", "pd", "--group", "decode")[1]
    assert hyperpd("events", "pd", "--level", "Error")[1] == "no such events\n"
    assert hyperpd("scale", "pd", "prefill=3")[0] == 0
    written(tmp_path, here.eks(continuous=True, groups={"prefill": {"count": 1}}))
    code, out, _ = hyperpd("update", path, "--yes")
    assert (code, "groups.prefill.count: 3 → 1" in out) == (0, True)
    assert hyperpd("repair", "pd", nodes[2]["id"], "--reboot", "--force")[0] == 0
    here.control.account.latest = "1.5.0"
    patched = hyperpd("patch", "pd", "--yes", "--force")[1]
    assert "prefill: release 1.4.2 → 1.5.0" in patched
    assert re.search(r"drain: node prefill/i-\w+ is not in Kubernetes", patched)
    assert any(one.startswith("GET /api/v1/pods?") for one in in_kubernetes.requests)
    code, out, _ = hyperpd("delete", "pd", "--yes")
    assert code == 0
    assert "stays, since hyperpd did not make it:" in out
    assert here.made() == {"clusters": [], "roles": [], "buckets": [], "keys": []}
    code, _, err = hyperpd("status", "pd")
    assert (code, "there is no cluster pd in us-east-2" in err) == (4, True)


def test_every_command_has_json(account, hyperpd, in_kubernetes, tmp_path):
    here = account()
    path = written(tmp_path, here.eks(continuous=True))
    planned = json.loads(hyperpd("plan", path, "--json")[1])
    assert planned["makes"]["role"] == "hyperpd-pd-us-east-2"
    dry = json.loads(hyperpd("create", path, "--dry-run", "--json")[1])
    assert dry == {"sent": False, "requests": planned["requests"]}
    assert here.made()["clusters"] == []
    made = json.loads(hyperpd("create", path, "--json")[1])
    assert made["cluster"]["ready"]
    assert json.loads(hyperpd("watch", "pd", "--json")[1]) == json.loads(hyperpd("status", "pd", "--json")[1])
    assert json.loads(hyperpd("events", "pd", "--json")[1])[0]["text"] == "Cluster creation started."
    assert json.loads(hyperpd("import", "pd", "--json")[1])["spec"]["name"] == "pd"
    scaled = json.loads(hyperpd("scale", "pd", "prefill=3", "--dry-run", "--json")[1])
    assert scaled["requests"][0]["operation"] == "update_cluster"
    assert json.loads(hyperpd("scale", "pd", "prefill=2", "--json")[1])["sent"] is False
    assert json.loads(hyperpd("update", path, "--json")[1])["changes"] == []
    node = here.control.nodes("pd", "prefill")[0].instance_id
    dry = json.loads(hyperpd("repair", "pd", node, "--replace", "--dry-run", "--json")[1])
    assert dry["requests"][0]["parameters"]["NodeIds"] == [node]
    assert json.loads(hyperpd("repair", "pd", "--unhealthy", "--reboot", "--json")[1])["nodes"] == []
    here.control.account.latest = "1.5.0"
    assert [one["after"] for one in json.loads(hyperpd("patch", "pd", "--yes", "--force", "--json")[1])] == [
        "1.5.0"
    ] * 2
    assert json.loads(hyperpd("delete", "pd", "--dry-run", "--json")[1])["deleted"] is False
    assert json.loads(hyperpd("delete", "pd", "--yes", "--json")[1])["deleted"] is True


def test_create_makes_nothing_where_a_problem_stands_in_the_way(account, hyperpd, tmp_path):
    here = account()
    itself = [{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": here.security_group}]}]
    here.aws.stage.client("ec2").revoke_security_group_egress(GroupId=here.security_group, IpPermissions=itself)
    before, path = here.made(), written(tmp_path, here.eks())
    code, _, err = hyperpd("create", path)
    assert (code, here.security_group in err, here.made()) == (4, True, before), err
    assert hyperpd("create", path, "--no-wait", "--no-preflight")[0] == 0


def test_python_looks_first_as_the_command_does(account):
    here = account()
    itself = [{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": here.security_group}]}]
    here.aws.stage.client("ec2").revoke_security_group_egress(GroupId=here.security_group, IpPermissions=itself)
    before, told = here.made(), []
    spec = parse(here.eks(), "c")
    with pytest.raises(CloudError, match=here.security_group):
        Cluster.create(spec, told.append, check=True)
    assert here.made() == before
    found = Cluster.preflight(spec)
    assert [one.check for one in found.of("problem")] == ["security-group"]
    # What is no problem is told.
    said = [line for level in ("unknown", "warning") for one in found.of(level) for line in one.lines()]
    assert said
    assert "\n".join(one.text for one in told).splitlines() == said


def test_an_import_writes_a_file_and_never_over_one(account, hyperpd, tmp_path):
    here = account()
    path, out = written(tmp_path, here.eks()), tmp_path / "imported.yaml"
    hyperpd("create", path)
    assert hyperpd("import", "pd", "-o", out)[0] == 0
    assert "it is there as the file says" in hyperpd("plan", out)[1]
    assert hyperpd("import", "pd", "-o", out)[0] == 2
    assert yaml.safe_load(hyperpd("import", "pd")[1]) == yaml.safe_load(out.read_text())


def test_exit_codes_and_next_commands(account, hyperpd, tmp_path):
    here = account(LifecycleFailure("decode"))
    path = written(tmp_path, here.eks())
    code, _, err = hyperpd("create", path)
    assert (code, "FailureMessage: Instance group 'decode'" in err) == (4, True)
    assert hyperpd("watch", "pd")[0] == 4
    here = account(Expire(9, "DescribeCluster"))
    code, _, err = hyperpd("create", path := written(tmp_path, here.eks()), "--no-preflight")
    assert (code, "hyperpd cluster watch pd --region us-east-2" in err) == (4, True)
    here = account(NoCapacity("prefill"))
    path = written(tmp_path, here.eks(continuous=True))
    code, _, err = hyperpd("create", path, "--timeout-min", "0")
    assert (code, "go on with hyperpd cluster watch pd --region us-east-2" in err) == (4, True)
    here.control.advance(1200)
    code, _, err = hyperpd("status", "pd")
    assert (code, "in service without all its nodes" in err) == (0, True)


def test_wrong_use(hyperpd, tmp_path):
    path = written(tmp_path, EKS, groups={"prefill": {"cout": 1}}, nmae="x")
    code, _, err = hyperpd("plan", path)
    assert (code, "2 problems" in err, "did you mean count?" in err) == (2, True, True)
    assert hyperpd("create", tmp_path / "none.yaml")[0] == 2
    for wrong in (
        ("scale", "pd", "prefill"),
        ("scale", "pd"),
        ("repair", "pd", "i-0"),
        ("repair", "pd", "--reboot"),
        ("repair", "pd", "i-0", "--reboot", "--unhealthy"),
        ("nothing",),
    ):
        assert hyperpd(*wrong)[0] == 2, wrong


def test_what_cannot_be_undone_is_asked(account, hyperpd, tmp_path, monkeypatch):
    here = account()
    path = written(tmp_path, here.eks())
    hyperpd("create", path)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert hyperpd("delete", "pd")[0] == 130
    assert hyperpd("patch", "pd")[0] == 130
    written(tmp_path, here.eks(groups={"decode": None}))
    assert hyperpd("update", path)[0] == 130
    assert hyperpd("delete", "pd", "--json")[0] == 2
    assert here.made()["clusters"] == ["pd"]
    assert len(here.control.nodes("pd")) == 3


def test_the_schema_knows_the_full_files(hyperpd):
    schema = json.loads(hyperpd("schema")[1])
    for document in (EKS_FULL, SLURM_FULL):
        jsonschema.Draft202012Validator(schema).validate(json.loads(json.dumps(document)))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**EKS, "nmae": 1}, schema)


def test_ctrl_c_says_what_remains(account, tmp_path):
    here = account()
    path = written(tmp_path, here.eks())
    running = subprocess.Popen(
        [*COMMAND, "create", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert running.stdout
    for line in running.stdout:  # it waits now, and looks again in 15 s
        if "pd Creating" in line:
            break
    running.send_signal(signal.SIGINT)
    _, err = running.communicate()
    assert running.returncode == 130
    assert "the cluster goes on without you: hyperpd cluster watch pd --region us-east-2" in err
    assert "Traceback" not in err

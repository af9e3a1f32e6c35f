"""Every command there is, found by walking the command line: its help, its JSON, and a wrong use of it.

A new command fails here until it has a line in CASES, and one with --json until hyperpd/cli/documents has its type.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from hyperpd.cli.documents import DOCUMENTS, json_schema
from hyperpd.cli.main import cli, main
from tests.cluster.files import EKS, SLURM
from tests.documents import held

IMAGE = "123456789012.dkr.ecr.us-east-2.amazonaws.com/hyperpd:1"
HUB = f"tiny-cpu-1p1d --set image={IMAGE} --set instance_type=ml.m5.2xlarge"
MIRROR = "{recipe} --registry r.example --bucket s3://models-example/p --model-folder {folder} -o {folder}/out.yaml"
PUBLISH = f"{HUB} --bucket s3://recipes-example/p --hub team"
RENDER = f"tiny-cpu-1p1d --target kubernetes --set image={IMAGE} -o {{folder}}/out"
TRACE = "tests/data/traces/mooncake_conversation.jsonl.gz"
PLACE = "--account 123456789012 --region us-east-2"
LIFE = "tests/cluster/test_cli.py::test_every_command_has_json"
ROLLED = "tests/deploy/test_deploy_cli.py::test_json"
# Where standard output is for a program anyway: a script, or JSON.
NO_JSON = {"completion", "schema", "recipes schema", "cluster schema"}


@dataclass(frozen=True, slots=True)
class Case:
    """wrong: words after the command that are a wrong use of it; says: what its error names to try.
    json: words with which --json works offline; where that takes more, `elsewhere` is the test that prints it.
    codes: how the command with `json` may end."""

    wrong: str
    says: str
    json: str | None = None
    elsewhere: str = ""
    codes: tuple[int, ...] = (0,)


CASES = {
    "up": Case("--recipe tiny-cpu-1p1", "did you mean tiny-cpu-1p1d?", elsewhere="tests/real/test_examples.py"),
    "status": Case("--jsn", "'--json'", json=""),
    "down": Case("nosuch", "hyperpd status", json=""),
    "invoke": Case("x --stream --json", "give one of them", elsewhere="tests/real/test_up.py"),
    "explain": Case("x --fleet nosuch", "give --url", elsewhere="tests/sdk/test_cli_explain.py"),
    "calibrate": Case(
        *("--url http://127.0.0.1:8080", "give the --recipe that runs there"),
        json="--url http://127.0.0.1:8080 --recipe deepseek-r1-p5en-1p1d --dry-run",
    ),
    "plan": Case("tiny-cpu-1p1", "did you mean tiny-cpu-1p1d?", json="tiny-cpu-1p1d --launch"),
    "recipes": Case("shwo", "did you mean show?", json=""),
    "recipes show": Case("tiny-cpu-1p1", "did you mean tiny-cpu-1p1d?", json="deepseek-r1-p5en-1p1d"),
    "recipes check": Case("tiny-cpu-1p1", "did you mean tiny-cpu-1p1d?", json="tiny-cpu-1p1d tiny-gpu-1p1d"),
    "recipes diff": Case("tiny-cpu-1p1d nosuch", "shipped recipes: ", json="tiny-cpu-1p1d tiny-cpu-tiered"),
    "recipes schema": Case("x", "hyperpd recipes schema --help"),
    "render": Case("tiny-cpu-1p1d", "give --target, one of kubernetes, ", json=RENDER),
    "targets": Case("kubernets", "did you mean kubernetes?", json=""),
    "replay": Case(
        *(f"{TRACE} --policy round_robi", "did you mean round_robin?"),
        json=f"{TRACE} --policy all --load 0.3 --slice-s 20 --warm-up-s 5 --seeds 2 --start-s 0",
    ),
    "doctor": Case("--peer nowhere", "as in 10.0.0.1:18515", json="", codes=(0, 4)),
    "image build": Case("--no-efa --context {folder}", "checkout", json="--engine none --tool codebuild --dry-run"),
    "image push": Case("x y:1@z", "as in registry.example", json="hyperpd:1 r.example/h --tool buildah --dry-run"),
    "image mirror": Case(
        *("tiny-cpu-1p1d --registry r.example -o {folder}/none/x.yaml", "make it first"),
        json=f"{MIRROR} --dry-run",
    ),
    "hub publish": Case(
        *(f"{HUB} --bucket s3://b/p --hub team --version 1", "as in s3://BUCKET/PREFIX"),
        json=f"{PUBLISH} --dry-run",
    ),
    "hub serve-local": Case(f"{HUB} --set bucket=s3://b", "remove it", elsewhere="test_ctrl_c_says_what_remains"),
    "deploy": Case("tiny-cpu-1p1", "did you mean tiny-cpu-1p1d?", elsewhere=ROLLED),
    "scale": Case("pd prefill", "as in prefill=3", elsewhere=ROLLED),
    "logs": Case("pd --role worker", "'prefill', 'decode'", elsewhere=ROLLED),
    "undeploy": Case("pd --cluster c --context d", "not both", elsewhere=ROLLED),
    "iam": Case("cluster creat", "did you mean", json=f"cluster create --cluster {{cluster}} {PLACE}"),
    "review": Case("nosuch.yaml", "nosuch.yaml", json=f"{{cluster}} {PLACE}"),
    "schema": Case("cluster statu", "did you mean cluster status?"),
    "completion": Case("tcsh", "'bash', 'zsh', 'fish'"),
    "cluster plan": Case("{wrong}", "did you mean count?", json="{cluster} --offline"),
    "cluster create": Case("{wrong}", "did you mean count?", elsewhere=LIFE),
    "cluster update": Case("{wrong}", "did you mean count?", elsewhere=LIFE),
    "cluster status": Case("{wrong}", "did you mean count?", elsewhere=LIFE),
    "cluster watch": Case("{wrong}", "did you mean count?", elsewhere=LIFE),
    "cluster events": Case("pd --level Warning", "'Warn'", elsewhere=LIFE),
    "cluster nodes": Case("{wrong}", "did you mean count?", elsewhere=LIFE),
    "cluster scale": Case("pd prefill", "as in prefill=4", elsewhere=LIFE),
    "cluster repair": Case("pd i-0", "give --reboot or --replace", elsewhere=LIFE),
    "cluster patch": Case("{wrong} --yes", "did you mean count?", elsewhere=LIFE),
    "cluster delete": Case("{wrong} --yes", "did you mean count?", elsewhere=LIFE),
    "cluster import": Case("pd -o {cluster}", "name another file", elsewhere=LIFE),
    "cluster schema": Case("x", "hyperpd cluster schema --help"),
}


def walk(command: click.Command, name: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by its words."""
    if not isinstance(command, click.Group) or command.invoke_without_command:
        yield name, command
    if isinstance(command, click.Group):
        for one in command.list_commands(click.Context(command)):
            found = command.get_command(click.Context(command), one)
            assert found
            yield from walk(found, f"{name} {one}".strip())


COMMANDS = dict(walk(cli))
OFFLINE = [name for name, case in CASES.items() if case.json is not None]


@pytest.fixture
def hyperpd(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Runs a command within this process, with files of its own and no way to any other machine or service."""
    state = {"pid": 1, "phase": "ready", "recipe": "f", "recipe_digest": "d", "url": "u", "admin_url": "a"}
    state |= {"model": "m", "drain_s": 1.0, "error": None, "exit_code": None, "workers": [], "steps": []}
    (tmp_path / "state" / "hyperpd" / "gone").mkdir(parents=True)
    (tmp_path / "state" / "hyperpd" / "gone" / "fleet.json").write_text(json.dumps(state))
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(EKS))
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump({**SLURM, "groups": {"prefill": {"cout": 1}}}))
    (tmp_path / "config.json").write_text("{}")
    recipe = {"version": 1, "name": "r", "accelerator": "cpu", "image": "ghcr.io/org/hyperpd:1.0", "decode": {}}
    recipe |= {"model": {"huggingface": "org/model", "revision": "abc"}, "prefill": {}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    for tool in ("buildah", "skopeo"):  # looked for, and not to be run
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / tool).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / "bin" / tool).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    files = {"folder": tmp_path, **{name: tmp_path / f"{name}.yaml" for name in ("cluster", "wrong", "recipe")}}

    def refuse(*asked: Any, **_: Any) -> None:
        raise AssertionError(f"the network was asked: {asked[1:] or asked}")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in ("CONFIG_FILE", "SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(f"AWS_{name}", str(tmp_path / "none"))

    def run(command: str, words: str = "") -> tuple[int, str, str]:
        argv = [*command.split(), *shlex.split(words.format_map(files))]
        monkeypatch.setattr(sys, "argv", ["hyperpd", *argv])
        code = 0
        try:
            main()
        except SystemExit as done:
            code = int(done.code or 0)
        return code, *capsys.readouterr()

    return run


def test_every_command_has_a_case_and_every_document_a_command() -> None:
    assert set(COMMANDS) == set(CASES)
    with_json = {name for name, command in COMMANDS.items() if any("--json" in one.opts for one in command.params)}
    assert set(COMMANDS) - with_json == NO_JSON
    assert with_json == set(DOCUMENTS)
    assert [name for name in with_json if not (CASES[name].elsewhere or CASES[name].json is not None)] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_help(name: str, hyperpd: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = hyperpd(name, "--help")
    assert (code, err, out.startswith(f"Usage: hyperpd {name} ")) == (0, "", True)
    assert COMMANDS[name].help
    for option in COMMANDS[name].params:
        if isinstance(option, click.Option):
            assert option.help, f"{option.opts[0]} has no help"
            assert option.name == "as_json" or "--json" not in option.opts  # tests know it by its name


@pytest.mark.parametrize("name", ["", "cluster", "image", "hub", "recipes"])
def test_help_of_a_group_has_every_command_with_a_whole_sentence(
    name: str, hyperpd: Callable[..., tuple[int, str, str]]
) -> None:
    _, out, _ = hyperpd(name, "--help")
    own = {one.removeprefix(name).split()[0] for one in COMMANDS if one != name and one.startswith(name)}
    assert own - {line.split()[0] for line in out.splitlines() if re.match(r"  [a-z]", line)} == set()
    assert "..." not in out.partition("\n\n")[2]


@pytest.mark.parametrize("name", OFFLINE)
def test_json_is_as_its_schema_says_and_needs_no_network(
    name: str, hyperpd: Callable[..., tuple[int, str, str]]
) -> None:
    code, out, err = hyperpd(name, f"{CASES[name].json} --json")
    assert code in CASES[name].codes, err
    held(name, json.loads(out))


@pytest.mark.parametrize("name", CASES)
def test_wrong_use(name: str, hyperpd: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = hyperpd(name, CASES[name].wrong)
    assert (code, out, "Traceback" in err) == (2, "", False), err
    assert CASES[name].says in err
    code, out, err = hyperpd(name, "--nosuch-option")
    assert (code, out, f"Try 'hyperpd {name} --help'" in err) == (2, "", True), err


def test_help_of_every_command_is_light() -> None:
    """Nothing beside click and the standard library is imported; how long it takes is printed, and not judged."""
    code = """
import os, sys
before = {one.partition(".")[0] for one in sys.modules}
from hyperpd.cli.main import main
for words in eval(sys.argv[1]):
    sys.argv = ["hyperpd", *words.split(), "--help"]
    try: main()
    except SystemExit: pass
    heavy = {one.partition(".")[0] for one in sys.modules} - before - {"hyperpd", "click"} - sys.stdlib_module_names
    if heavy: sys.exit(f"hyperpd {words} --help imports {sorted(heavy)}")
    if not words: print("root:", sum(os.times()[:2]), "s of CPU", file=sys.stderr)
"""
    groups = {name.rpartition(" ")[0] for name in COMMANDS}
    argv = [sys.executable, "-c", code, repr(sorted({*groups, *COMMANDS}))]
    ran = subprocess.run(argv, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout.count("Usage: ")) == (0, len({*groups, *COMMANDS})), ran.stderr
    print(ran.stderr)


@pytest.mark.parametrize("name", ["", "cluster"])
def test_an_unknown_command_is_answered_with_the_nearest(
    name: str, hyperpd: Callable[..., tuple[int, str, str]]
) -> None:
    code, _, err = hyperpd(name, "stats")
    assert (code, "did you mean status?" in err, "--help" in err) == (2, True, True)
    code, _, err = hyperpd(name, "xyzzy")
    assert (code, "there are " in err) == (2, True)


def test_schema_says_what_is_printed(hyperpd: Callable[..., tuple[int, str, str]]) -> None:
    assert hyperpd("schema")[1].splitlines() == list(DOCUMENTS)
    for name in DOCUMENTS:
        assert json.loads(hyperpd(f"schema {name}")[1]) == json_schema(name)


@pytest.mark.parametrize(
    ("words", "cut", "remains"),
    [
        ("down", "hyperpd.cli.fleet.LocalFleet.stop", "hyperpd status"),
        (f"render {RENDER}", "hyperpd.cli.render.write", "run it again for the rest: hyperpd render tiny-cpu-1p1d"),
        (
            "image build --no-efa --tool buildah",
            "hyperpd.image.tools.Buildah.build",
            "in its cache; run it again: hyperpd image build",
        ),
        (
            "image push hyperpd:1 r.example/h --tool buildah",
            "hyperpd.image.tools.push",
            "run it again, and the rest is sent: hyperpd image",
        ),
        (f"image mirror {MIRROR}", "hyperpd.image.mirror.copy_image", "out.yaml is not written; run it again"),
        (f"hub publish {PUBLISH}", "hyperpd.deploy.hub_recipe.publish.send", "stay at s3://recipes-example/p"),
        (f"hub serve-local {HUB} --port 0 --json", "socketserver.BaseServer.serve_forever", "nothing remains"),
    ],
)
def test_ctrl_c_says_what_remains(
    words: str,
    cut: str,
    remains: str,
    hyperpd: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def press(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hyperpd.cli.fleet.LocalFleet.running", lambda fleet: True)
    monkeypatch.setattr(cut, press)
    code, _, err = hyperpd("", words)
    assert (code, remains in err, err.endswith("error: interrupted\n")) == (130, True, True), err


def test_up_without_its_extra_names_the_command_that_installs_it(
    hyperpd: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*_: Any) -> None:
        raise AssertionError("a node was started")

    monkeypatch.setattr("hyperpd.cli.fleet.LocalFleet.start", start)
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    code, out, err = hyperpd("up")
    assert (code, out, "not installed: aiohttp; pip install 'hyperpd[gateway]'" in err) == (4, "", True)

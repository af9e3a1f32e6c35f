"""hyperpd recipes, render and targets as a user meets them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from hyperpd import deploy
from hyperpd.cli.render import others
from hyperpd.deploy.target import leaves
from hyperpd.recipe import Recipe, shipped
from tests.sdk.test_cli import hyperpd

IMAGE = ("--target", "kubernetes", "--set", "image=r.example/h:1")


def test_the_list_is_what_is_shipped() -> None:
    assert [line.split()[0] for line in hyperpd("recipes").stdout.splitlines()[1:]] == shipped()
    facts = {one["name"]: one for one in json.loads(hyperpd("recipes", "--json").stdout)}
    headline = facts["gpt-oss-120b-p5en-8p2d"]
    assert (headline["layout"], headline["capacity"]["gpus"], headline["capacity"]["nodes"]) == ("8P+2D", 16, 2)
    assert headline["usd_per_hour"] == pytest.approx(2 * 63.296)
    assert facts["tiny-cpu-1p1d"]["usd_per_hour"] is None


def test_show_says_what_is_computed_estimated_and_not_known() -> None:
    said = hyperpd("recipes", "show", "deepseek-r1-p5en-1p1d").stdout
    for part in (
        "70,272 bytes per token",
        "(computed)",
        "reserve (estimate)",
        "32 GPUs, 4 nodes",
        "DP16 EP over 2 nodes",
    ):
        assert part in said
    assert "a reference: HyperPod bills its own rates" in said
    assert "unchecked" in hyperpd("recipes", "show", "tiny-gpu-1p1d").stdout


def test_check_names_every_recipe_and_the_worst_ends_it(tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    role = {"instance_type": "ml.g6e.8xlarge"}
    document = {"version": 1, "name": "large", "model": {"huggingface": "openai/gpt-oss-120b"}}
    large.write_text(yaml.safe_dump(document | {"prefill": role, "decode": role}))
    ran = hyperpd("recipes", "check", "tiny-cpu-1p1d", str(large), "nosuch")
    assert (ran.returncode, "ok tiny-cpu-1p1d" in ran.stdout) == (3, True)
    assert "available" in ran.stderr
    assert hyperpd("render", str(large), *IMAGE).returncode == 3  # nothing is rendered that cannot run
    assert "no shipped recipe of this name" in ran.stderr
    results = json.loads(hyperpd("recipes", "check", "tiny-cpu-1p1d", str(large), "--json").stdout)
    assert [one["ok"] for one in results] == [True, False]


def test_diff_is_by_field_and_says_whether_workers_pair() -> None:
    said = hyperpd("recipes", "diff", "tiny-cpu-1p1d", "tiny-cpu-tiered").stdout
    assert "prefill.kv_tiers.disk: - → /tmp/hyperpd-kv" in said
    assert "engine digest: different" in said  # the tier takes the hybrid cache from both roles
    same = json.loads(hyperpd("recipes", "diff", "tiny-cpu-1p1d", "tiny-cpu-1p1d", "--json").stdout)
    assert same == {"changed": {}, "same_engine_digest": True}


def test_render_to_a_folder_is_repeatable(tmp_path: Path) -> None:
    out = tmp_path / "out"
    dry = hyperpd("render", "tiny-cpu-1p1d", *IMAGE, "-o", str(out), "--dry-run")
    assert (dry.returncode, "would write" in dry.stdout, out.exists()) == (0, True, False)
    assert hyperpd("render", "tiny-cpu-1p1d", *IMAGE, "-o", str(out)).returncode == 0
    (out / "mine.yaml").write_text("kept: true\n")
    again = hyperpd("render", "tiny-cpu-1p1d", *IMAGE, "-o", str(out))
    assert {line.split(":")[0] for line in again.stdout.splitlines()} == {"unchanged"}
    assert "left alone" in again.stderr
    printed = list(yaml.safe_load_all(hyperpd("render", "tiny-cpu-1p1d", *IMAGE).stdout))
    written = [one for path in sorted(out.glob("[0-9]*")) for one in yaml.safe_load_all(path.read_text())]
    assert printed == written
    assert len(json.loads(hyperpd("render", "tiny-cpu-1p1d", *IMAGE, "--json").stdout)["documents"]) == len(written)


def test_wrong_words() -> None:
    wrong = hyperpd("render", "tiny-cpu-1p1d", "--target", "kubernetes", "--set", "platfrm=eks", "--set", "x")
    assert wrong.returncode == 2
    for part in ("platfrm: unknown key; did you mean platform?", "x: give it as key=value"):
        assert part in wrong.stderr
    twice = hyperpd("render", "tiny-cpu-1p1d", *IMAGE, "--set", "image=other")
    assert (twice.returncode, "image: given twice" in twice.stderr) == (2, True)
    assert hyperpd("render", "tiny-cpu-1p1d", *IMAGE, "--dry-run").returncode == 2
    nowhere = hyperpd("render", "tiny-cpu-1p1d", *IMAGE, "-o", "/dev/null/x")
    assert (nowhere.returncode, "cannot be written" in nowhere.stderr, nowhere.stdout) == (2, True, "")
    assert "did you mean kubernetes?" in hyperpd("render", "tiny-cpu-1p1d", "--target", "kubernets").stderr
    assert "image: the recipe names none" in hyperpd("render", "tiny-cpu-1p1d", "--target", "kubernetes").stderr


def test_targets_says_what_becomes_of_every_field() -> None:
    _, matrix, rest = hyperpd("targets").stdout.split("\n\n")
    head, *rows = (re.split(r"  +", line) for line in matrix.splitlines())
    assert head == ["recipe field", *deploy.TARGETS]
    whole = json.loads(hyperpd("targets", "--json").stdout)
    for path, *fates in rows:
        assert fates == [whole[name]["fields"][path]["fate"] for name in deploy.TARGETS], path
    shown = {path for path, *_ in rows}
    assert "every other field is expressed by all" in rest
    left = set(leaves(Recipe)) - shown
    assert {whole[name]["fields"][path]["fate"] for name in deploy.TARGETS for path in left} == {"expressed"}
    said = hyperpd("targets", "kubernetes").stdout
    assert "*.autoscaling.min" in said
    document = json.loads(hyperpd("targets", "--json").stdout)["kubernetes"]
    assert set(document["fields"]["slo.ttft_ms"]) == {"fate", "how"}
    assert "platform" in document["options"]


ROLE = ("--set", "role_arn=arn:aws:iam::123456789012:role/hyperpd", "--set", "instance_type=ml.m5.2xlarge")
ECR = ("--set", "image=123456789012.dkr.ecr.us-east-2.amazonaws.com/hyperpd:1")
ENDPOINT = ("render", "tiny-cpu-1p1d", "--target", "sagemaker_endpoint", *ECR, *ROLE)


def test_what_is_not_yaml_goes_to_a_folder(tmp_path: Path) -> None:
    printed = hyperpd(*ENDPOINT)
    assert (printed.returncode, printed.stdout) == (2, "")
    assert "7 of 7 files are not YAML, as 1-role-trust.json: give -o FOLDER, or --json" in printed.stderr
    assert json.loads(hyperpd(*ENDPOINT, "--json").stdout)["target"] == "sagemaker_endpoint"
    (tmp_path / "5-old.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")
    note = next(line for line in hyperpd(*ENDPOINT, "-o", str(tmp_path)).stderr.splitlines() if "left alone" in line)
    assert ("5-old.json" in note, "notes.txt" in note) == (True, False)


def test_what_is_left_below_a_folder_of_the_rendering_is_said(tmp_path: Path) -> None:
    (tmp_path / "upload" / "old").mkdir(parents=True)
    for left in ("upload/old/2-endpoint.yaml", "upload/1.yaml", "mine/3.yaml"):
        (tmp_path / left).parent.mkdir(exist_ok=True)
        (tmp_path / left).write_text("{}")
    found = others(tmp_path, ["page.md", "upload/1.yaml"])
    assert [str(path.relative_to(tmp_path)) for path in found] == ["upload/old/2-endpoint.yaml"]

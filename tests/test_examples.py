"""The examples' table has them all, each begins with its question, and what pages say to type can be typed."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from hyperpd import cluster, recipe
from hyperpd.cli.main import cli
from hyperpd.cluster.blueprint import blueprint
from hyperpd.cluster.names import Place
from hyperpd.deploy.wanted import want

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
PAGES = [ROOT / "README.md", ROOT / "recipes" / "README.md", *sorted(EXAMPLES.rglob("README.md"))]


def test_the_table_has_every_example_and_each_begins_with_its_question() -> None:
    rows = re.findall(r"^\| .*\? \| \[([a-z-]+)\]\(\1/README\.md\) \|", (EXAMPLES / "README.md").read_text(), re.M)
    assert sorted(rows) == sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir())
    for name in rows:
        title, first, *_ = (EXAMPLES / name / "README.md").read_text().split("\n\n")
        assert title.endswith("?") or re.match(r"\*[^*]*\?\*", first), name


def test_the_whole_ways_cluster_has_room_for_what_it_deploys_and_scales() -> None:
    spec = cluster.load(EXAMPLES / "whole-way" / "cluster.yaml")
    assert spec.recipe
    file = recipe.load(spec.recipe)
    front = ("front=true", "front_instance_type=ml.c6i.2xlarge")
    for target, more in (("kubernetes", ()), ("inference_operator", front)):
        want(file, target, ("image=registry.example/hyperpd:1", *more))  # nothing else is needed
    (scaled,) = re.findall(r"\.scale\((\{.*?\})", (EXAMPLES / "whole-way" / "walk.py").read_text())
    groups = cluster.file.check(spec)
    assert all(workers <= (groups[role].count or 0) for role, workers in json.loads(scaled).items())


def test_one_request_makes_the_cluster_of_those_who_take_no_other_client() -> None:
    plan = blueprint(cluster.load(EXAMPLES / "sagemaker-sdk" / "cluster.yaml"), Place("123456789012", "us-east-2"))
    assert not plan.makes_role
    assert not plan.scripts


def commands(page: Path) -> Iterator[list[str]]:
    """The words after `hyperpd` of what a page says to type, of status|watch the first."""
    text = page.read_text()
    blocks = re.sub(r"\\\n\s*", "", "\n".join(re.findall(r"^ *```\w*\n(.*?)^ *```", text, re.M | re.S)))
    lines = [line.strip() for line in blocks.splitlines()]
    lines += re.findall(r"`(hyperpd [^`]*)`", re.sub(r"```.*?```", "", text, flags=re.S))
    for line in lines:
        if line.startswith("hyperpd "):
            words = shlex.split(line, comments=True)
            ends = [words.index(one) for one in ("|", ">", ";", "&&") if one in words]
            yield [word.partition("|")[0] for word in words[1 : min(ends, default=None)]]


def parse(words: list[str]) -> None:
    """As the command line does; nothing is run. Raises click.UsageError for a command or an option that is not there;
    pages may leave out values."""
    command: click.Command = cli
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        _, found, words = command.resolve_command(click.Context(command, info_name="hyperpd"), words)
        assert found
        command = found
    if words:
        with contextlib.suppress(click.BadParameter, click.BadOptionUsage):
            command.make_context(command.name, words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_says_to_type_can_be_typed(page: Path) -> None:
    for words in commands(page):
        parse(words)


def test_a_page_with_a_command_that_is_not_there_fails(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```\nhyperpd render x --target slurm \\\n    --outt .\n```\n and `hyperpd recipes shwo`")
    for words in commands(page):
        with pytest.raises(click.UsageError):
            parse(words)
    assert len(list(commands(page))) == 2

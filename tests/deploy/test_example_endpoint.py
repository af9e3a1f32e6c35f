"""examples/sagemaker-endpoint: its page renders, and its reader of streams loses nothing wherever parts end."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from hyperpd import recipe
from hyperpd.deploy import render
from hyperpd.recipe import RecipeFile

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "sagemaker-endpoint"
TEXTS = ["Es war ", "ein grüner 🙂", " Hund\n", "."]


@pytest.fixture
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ask_boto3", FOLDER / "ask_boto3.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _sent(*events: str, cut: int) -> Any:
    """A runtime that answers with these events, in parts of so many bytes."""
    content = "".join(f"data: {event}\r\n\r\n" for event in events).encode()

    def parts() -> Iterator[dict[str, Any]]:
        for at in range(0, len(content), cut):
            yield {"PayloadPart": {"Bytes": content[at : at + cut]}}

    def invoke(*, EndpointName: str, ContentType: str, Body: str) -> dict[str, Any]:
        assert (EndpointName, ContentType) == ("tiny", "application/json")
        assert json.loads(Body) == {"model": "m", "stream": True}
        return {"Body": parts()}

    return SimpleNamespace(invoke_endpoint_with_response_stream=invoke)


def _events(texts: Sequence[str]) -> list[str]:
    return [json.dumps({"choices": [{"text": text}]}, ensure_ascii=False) for text in texts]


@pytest.mark.parametrize("cut", [1, 2, 3, 7, 1000])
def test_a_stream_is_read_whole_wherever_parts_end(example: ModuleType, cut: int) -> None:
    runtime = _sent(*_events(TEXTS), "[DONE]", cut=cut)
    assert list(example.stream(runtime, "tiny", {"model": "m"})) == TEXTS


@pytest.mark.parametrize(
    ("events", "said"),
    [
        (_events(TEXTS), "without [DONE]"),
        ([*_events(TEXTS), '{"error": {"message": "decode is gone"}}', "[DONE]"], "decode is gone"),
    ],
)
def test_a_stream_that_breaks_is_no_answer(example: ModuleType, events: list[str], said: str) -> None:
    with pytest.raises(SystemExit, match=re.escape(said)):
        list(example.stream(_sent(*events, cut=5), "tiny", {"model": "m"}))


def test_the_page_renders(load: Callable[[str], RecipeFile]) -> None:
    page = (FOLDER / "README.md").read_text().replace("\\\n", " ")
    command = shlex.split(next(line for line in page.splitlines() if line.strip().startswith("hyperpd render gpt")))
    settings = [command[at + 1] for at, word in enumerate(command) if word == "--set"]
    documents = render(recipe.load(command[2]), command[command.index("--target") + 1], settings).documents
    files = {f"endpoint/{one.file}" for one in documents}
    assert set(re.findall(r"endpoint/\w+\.py", page)) <= files
    asked = shlex.split(next(line for line in page.splitlines() if line.strip().startswith("python ask_boto3.py")))
    endpoint = next(one.body for one in documents if one.file == "4-endpoint.json")
    assert asked[2] == endpoint["EndpointName"]
    assert asked[3] == recipe.load(command[2]).recipe.model.name

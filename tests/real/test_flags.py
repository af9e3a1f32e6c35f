"""Every option that a shipped recipe makes hyperpd pass is one that the engine's own parser knows."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from hyperpd import capacity
from hyperpd.engine import launch
from hyperpd.environment import model_path
from hyperpd.placement import place
from hyperpd.recipe import load, parse, shipped

pytestmark = pytest.mark.real

_PARSE = """
import json, sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.reasoning import ReasoningParserManager
from vllm.utils.argparse_utils import FlexibleArgumentParser

parser = make_arg_parser(FlexibleArgumentParser())
def refuse(message):
    raise ValueError(message)
parser.error = refuse
found = {}
for name, argv in json.load(sys.stdin).items():
    try:
        args, unknown = parser.parse_known_args(argv)
        found[name] = f"unknown: {unknown}" if unknown else None
        if args.reasoning_parser:
            ReasoningParserManager.get_reasoning_parser(args.reasoning_parser)
    except (KeyError, ValueError) as error:
        found[name] = str(error)
print("FOUND" + json.dumps(found))
"""


def parsed(commands: dict[str, list[str]]) -> dict[str, str | None]:
    """What vLLM's parser says of each argv; None for nothing. One process for all: it imports for seconds."""
    run = subprocess.run(
        [sys.executable, "-c", _PARSE], input=json.dumps(commands), capture_output=True, text=True, check=False
    )
    assert "FOUND" in run.stdout, run.stderr
    answer: dict[str, str | None] = json.loads(run.stdout.rsplit("FOUND", 1)[1])
    return answer


def arguments(document: Any) -> dict[str, list[str]]:
    """The options of every worker, without interpreter, module and subcommand."""
    recipe = parse(document, "test") if isinstance(document, dict) else load(document).recipe
    workers = place(recipe, capacity.machines(recipe)).workers
    argvs = [launch(recipe, worker, model_path=model_path(recipe)).argv for worker in workers]
    return {
        f"{recipe.name} {worker.name}": list(argv[argv.index("--model") :])
        for worker, argv in zip(workers, argvs, strict=True)
    }


def test_the_engine_knows_every_option_of_every_shipped_recipe() -> None:
    commands = {key: argv for name in shipped() for key, argv in arguments(name).items()}
    assert len(commands) > 60
    pair = {"version": 1, "name": "wrong", "accelerator": "cpu", "model": {"generated": "tiny-llama"}, "prefill": {}}
    rich: dict[str, Any] = {
        **pair,
        "name": "rich",
        "accelerator": "gpu",
        "model": {"path": "/m", "adapters": [{"name": "a", "path": "/a"}]},
        "prefill": {"kv_tiers": {"memory_gib": 1, "disk": "/kv"}},
        "decode": {"parallel": {"data": 4, "nodes": 2}},
    }
    wide = {"version": 1, "name": "wide", "model": {"s3": "s3://bucket/model"}}
    pipeline = {"aggregated": {"parallel": {"tensor": 8, "pipeline": 2, "nodes": 2}}}
    wrong = arguments(pair | {"decode": {"engine": {"max-num-sequences": 4}}})
    found = parsed(commands | arguments(rich) | arguments(wide | pipeline) | wrong)
    refused = {name: why for name, why in found.items() if why}
    assert list(refused) == ["wrong decode-0"], refused
    assert "--max-num-sequences" in str(refused["wrong decode-0"])

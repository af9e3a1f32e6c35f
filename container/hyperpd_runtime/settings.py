"""Environment + argv → Settings: read once, every problem at once."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from hyperpd.environment import PREFIX, Environment
from hyperpd.errors import RecipeError
from hyperpd.options import EngineOption, engine_options
from hyperpd.problems import problems

_FIELDS = tuple(Environment.model_fields)
_SAGEMAKER_MODEL = Path("/opt/ml/model")  # where SageMaker puts a model's files
_THEIRS = {"UCX_NET_DEVICES": "net_devices", "LWS_WORKER_INDEX": "node_rank", "LWS_LEADER_ADDRESS": "leader"}
_VLLM_PREFIX = "SM_VLLM_"  # the convention of the AWS container


@dataclass(frozen=True, slots=True)
class Settings:
    """What this process is told: our own settings, and vLLM options beside the recipe's."""

    environment: Environment
    options: Mapping[str, EngineOption]
    api_port: int | None = None  # where the platform wants the API


def read(argv: Sequence[str], environ: Mapping[str, str], model_folder: Path = _SAGEMAKER_MODEL) -> Settings:
    """Settings of this process; see hyperpd.environment for what wins over what.

    Raises RecipeError with every unknown or unusable setting.
    """
    found: list[str] = []
    values = _elsewhere(environ, model_folder)
    theirs = {
        key.removeprefix(_VLLM_PREFIX).lower(): _scalar(value)
        for key, value in environ.items()
        if key.startswith(_VLLM_PREFIX) and key != _VLLM_PREFIX + "MODEL"
    }
    for key, value in environ.items():
        if key.startswith(PREFIX):
            _take(values, key.removeprefix(PREFIX).lower(), value, key, found)
    ours, passed = _split(argv)
    _arguments(values, ours, found)
    options: dict[str, EngineOption] = {}
    for given in (theirs, _passed(passed, found)):
        try:
            options |= engine_options(given)
        except ValueError as error:
            found.append(str(error))
    port = environ.get("SAGEMAKER_BIND_TO_PORT", "")
    if port and not port.isdigit():
        found.append(f"SAGEMAKER_BIND_TO_PORT: not a port (found {port!r})")
    try:
        environment = Environment.model_validate(values)
    except ValidationError as error:
        found += [f"{problem} (HYPERPD_* or --*)" for problem in problems(error, Environment)]
    if found:
        raise RecipeError("settings", found)
    return Settings(environment, options, int(port) if port else None)


def _elsewhere(environ: Mapping[str, str], model_folder: Path) -> dict[str, str]:
    """Settings in other platforms' words."""
    found = {field: environ[name] for name, field in _THEIRS.items() if environ.get(name)}
    for key in ("SM_VLLM_MODEL", "HF_MODEL_ID"):
        if environ.get(key):
            return found | {"model": environ[key]}
    return found | ({"model": str(model_folder)} if (model_folder / "config.json").is_file() else {})


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    words = list(argv)
    at = words.index("--") if "--" in words else len(words)
    return words[:at], words[at + 1 :]


def _arguments(values: dict[str, str], words: list[str], found: list[str]) -> None:
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if not name.startswith("--"):
            found.append(f"{word}: settings are --name value; vLLM's own options follow a --")
            continue
        if not equals:
            if not words:
                found.append(f"{name}: needs a value")
                continue
            value = words.pop(0)
        _take(values, name.removeprefix("--").replace("-", "_"), value, name, found)


def _passed(words: list[str], found: list[str]) -> dict[str, EngineOption]:
    """vLLM's options: --name value, --name=value, or --name alone."""
    options: dict[str, EngineOption] = {}
    while words:
        name, equals, value = words.pop(0).partition("=")
        if not name.startswith("--"):
            found.append(f"{name}: vLLM's options are --name or --name value")
        elif equals:
            options[name] = _scalar(value)
        else:
            options[name] = _scalar(words.pop(0)) if words and not words[0].startswith("--") else True
    return options


def _scalar(text: str) -> EngineOption:
    return {"true": True, "false": False}.get(text.lower(), text)


def _take(values: dict[str, str], field: str, value: str, shown: str, found: list[str]) -> None:
    if field in _FIELDS:
        values[field] = value
        return
    near = difflib.get_close_matches(field, _FIELDS, 1)
    found.append(f"{shown}: unknown" + (f"; did you mean {near[0]}?" if near else f"; known: {', '.join(_FIELDS)}"))

"""KV-cache events: what workers have to publish for the endpoint picker's exact prefix index.

Workers publish where the recipe's engine options say so (kv-events-config). The endpoint picker dials each worker
itself, at a first port plus the place of the worker's port in the InferencePool, and reads topics kv@ANYTHING@MODEL.
Without events it estimates what workers hold from the requests it has seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from hyperpd.deploy.kubernetes import sidecar
from hyperpd.deploy.kubernetes.fleet import PORTS
from hyperpd.recipe import Recipe, Role

OPTION = "kv-events-config"
TOPIC = "kv@"


def port(role: Role) -> int:
    """Where a worker of `role` has to publish."""
    place = sidecar.PAIR_PORTS.index(PORTS.worker_api) if role == "prefill" else 0
    return PORTS.kv_events + place


def published(recipe: Recipe) -> bool:
    """Whether any worker publishes."""
    return any(_config(recipe, role) is not None for role in recipe.roles())


def problems(recipe: Recipe) -> Iterator[str]:
    """Why the endpoint picker would not hear, or not understand, what workers publish."""
    if not published(recipe):
        return
    if not recipe.model.huggingface:
        yield (
            f"model: with {OPTION} the endpoint picker tokenises prompts, and its tokeniser takes a Hugging Face id"
            f" alone; remove {OPTION}, and it estimates"
        )
    for role, spec in recipe.roles().items():
        at = f"{role}.engine.{OPTION}"
        config = _config(recipe, role)
        if config is None:
            yield f"{at}: missing; the other role publishes, and the endpoint picker listens to both"
            continue
        if not isinstance(config, dict):
            yield f"{at}: give it as a mapping"
            continue
        wanted = {"enable_kv_cache_events": True, "publisher": "zmq", "endpoint": f"tcp://*:{port(role)}"}
        for key, value in wanted.items():
            if config.get(key) != value:
                yield f"{at}.{key}: {config.get(key)!r}; llm-d's endpoint picker needs {value!r}"
        topic = str(config.get("topic", ""))
        if not re.fullmatch(rf"{TOPIC}[^@]+@{re.escape(recipe.model.name)}", topic):
            yield f"{at}.topic: {topic!r}; llm-d's endpoint picker needs {f'{TOPIC}{role}@{recipe.model.name}'!r}"
        if spec.parallel.data > 1:
            yield f"{role}.parallel.data: each rank publishes at a port of its own; the endpoint picker hears the first"


def _config(recipe: Recipe, role: Role) -> Any:
    """What the role's engine is told, in whatever spelling."""
    return next((v for key, v in recipe.role(role).engine.items() if key.replace("_", "-") == OPTION), None)

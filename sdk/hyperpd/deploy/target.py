"""What a target is: it turns a recipe into documents, and says of every recipe field what becomes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pydantic import BaseModel

from hyperpd.recipe import Block, Recipe, RecipeFile

Fate = Literal["expressed", "not expressed", "refused"]


@dataclass(frozen=True, slots=True)
class Field:
    """What a target does with a recipe field: `how`, or why not."""

    fate: Fate
    how: str


@dataclass(frozen=True, slots=True)
class Document:
    """One object (a mapping, written as YAML, or as JSON to a .json file) or one text, and the file it goes to.

    comment: why it is there, above the object. notes: path of a key ("spec.template.spec.hostIPC") → a
    comment above that key.
    """

    file: str
    comment: str
    body: Mapping[str, Any] | str
    notes: Mapping[str, str] | None = None


class Target(Protocol):
    """One file or package of this folder: the names a module has to have."""

    NAME: str
    SUMMARY: str
    Options: type[Block]  # what the recipe does not say: platform, namespace, queue …; `--set key=value`
    # Path of a field ("prefill.parallel.nodes"; `*` stands for a role) → what becomes of it. A path
    # holds for everything below it.
    FIELDS: Mapping[str, Field]

    def problems(self, recipe: Recipe, options: Any) -> list[str]:
        """Why this recipe cannot be rendered with these options, beyond refused fields; every problem at once."""

    def losses(self, recipe: Recipe, options: Any) -> list[str]:
        """What this recipe says and these documents do not, beyond FIELDS: "path: why"."""

    def documents(self, file: RecipeFile, options: Any) -> list[Document]:
        """The documents, in the order in which they are applied."""


def fate(fields: Mapping[str, Field], path: str) -> Field | None:
    """What a target says of the field at `path`: by its own line, or that of the nearest block above it."""
    parts = path.split(".")
    if parts[0] in ("prefill", "decode", "aggregated"):
        parts[0] = "*"
    for end in range(len(parts), 0, -1):
        if found := fields.get(".".join(parts[:end])):
            return found
    return None


def written(block: BaseModel, above: str = "") -> Iterator[str]:
    """Paths of the fields that the author wrote, blocks opened: also where the value is the default. A null says
    nothing."""
    for name in type(block).model_fields:
        if name not in block.model_fields_set:
            continue
        value, path = getattr(block, name), f"{above}{name}"
        if isinstance(value, BaseModel):
            yield from written(value, f"{path}.")
        elif value is not None:
            yield path


def endpoint_name(recipe: Recipe) -> str:
    """The recipe's name as SageMaker and labels of Kubernetes take it: without dots."""
    return recipe.name.replace(".", "-")


def question(recipe: Recipe) -> str:
    """The body of a first request, for every path that takes chats: /invocations and /v1/chat/completions."""
    messages = [{"role": "user", "content": "Hello"}]
    body = {"model": recipe.model.name, "max_tokens": 16, "messages": messages}
    return json.dumps(body, separators=(",", ":"))


def leaves(block: type[BaseModel], above: str = "") -> Iterator[str]:
    """Paths of every field a recipe may have; the roles as `*`, once."""
    for name, field in block.model_fields.items():
        if above == "" and name in ("decode", "aggregated"):
            continue
        path = above + ("*" if above == "" and name == "prefill" else name)
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
        inner = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if inner:
            yield from leaves(inner[0], f"{path}.")
        else:
            yield path

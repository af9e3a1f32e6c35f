"""texts(documents, header, not_expressed) → file name → text: YAML in block style, with comments where they belong.

Written here and not by a YAML library, because those keep no comments. A text is plain only where every
YAML version reads it as a text; anything else is quoted, or a literal block when it has several lines.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from textwrap import wrap
from typing import Any

from hyperpd.deploy.target import Document

_WIDTH = 110
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./@+-]*(:[A-Za-z0-9_./@+-]+)*|[0-9]+(Mi|Gi|s)")
# What YAML 1.1, which Kubernetes' tools still read, or 1.2 takes for something else than a text.
_WORDS = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}


def texts(documents: Sequence[Document], header: Mapping[str, str], not_expressed: Sequence[str]) -> dict[str, str]:
    """File name → text, in the order of the documents.

    header: what every file of objects begins with; a text of its own is left as it is.
    """
    top = [f"{key}: {value}" for key, value in header.items()]
    top += ["not expressed:", *(f"  {lost}" for lost in not_expressed)] if not_expressed else ["not expressed: nothing"]
    files: dict[str, str] = {}
    for document in documents:
        if isinstance(document.body, str):
            files[document.file] = document.body
            continue
        if document.file.endswith(".json"):  # which has no comments
            files[document.file] = json.dumps(document.body, indent=2, ensure_ascii=False) + "\n"
            continue
        before = (
            files[document.file] + "---\n"
            if document.file in files
            else "\n".join([*(f"# {line}" for line in top), "", ""])
        )
        lines = [*_comment(document.comment, 0), *_mapping(document.body, 0, "", document.notes or {})]
        files[document.file] = before + "\n".join([*lines, ""])
    return files


def text(mapping: Mapping[str, Any]) -> str:
    """One mapping alone, without comments: what goes into another document as a text."""
    return "\n".join([*_mapping(mapping, 0, "", {}), ""])


def _comment(text: str, indent: int) -> Iterator[str]:
    for paragraph in text.splitlines():
        lines = wrap(paragraph, _WIDTH - indent, break_on_hyphens=False, break_long_words=False)
        yield from (" " * indent + f"# {line}" for line in lines)


def _mapping(mapping: Mapping[str, Any], indent: int, path: str, notes: Mapping[str, str]) -> Iterator[str]:
    for key, value in mapping.items():
        below = f"{path}.{key}" if path else key
        if note := notes.get(below):
            yield from _comment(note, indent)
        first, rest = _value(value, indent + 2, below, notes)
        yield " " * indent + f"{scalar(key)}:" + (f" {first}" if first else "")
        yield from rest


def _sequence(items: Sequence[Any], indent: int, path: str, notes: Mapping[str, str]) -> Iterator[str]:
    for index, item in enumerate(items):
        below = f"{path}.{index}"
        if note := notes.get(below):
            yield from _comment(note, indent)
        first, rest = _value(item, indent + 2, below, notes)
        if first:
            yield " " * indent + f"- {first}"
        else:  # the dash goes before its first key, below that key's comments
            lines = list(rest)
            at = next(n for n, line in enumerate(lines) if not line.lstrip().startswith("#"))
            yield from lines[:at]
            yield " " * indent + "- " + lines[at][indent + 2 :]
            rest = iter(lines[at + 1 :])
        yield from rest


def _value(value: Any, indent: int, path: str, notes: Mapping[str, str]) -> tuple[str, Iterator[str]]:
    """What follows a key on its line, and the lines below it."""
    if isinstance(value, Mapping) and value:
        return "", _mapping(value, indent, path, notes)
    if isinstance(value, list | tuple) and value:
        return "", _sequence(value, indent, path, notes)
    if isinstance(value, str) and _is_block(value):
        body = value.removesuffix("\n")
        keep = "+" if body.endswith("\n") else "" if body != value else "-"
        lines = (value if keep == "-" else body).split("\n")
        return f"|{keep}", (" " * indent + line if line else "" for line in lines)
    return scalar(value), iter(())


def _is_block(text: str) -> bool:
    return "\n" in text and text[0] not in " \t\n" and all(c in "\n\t" or c.isprintable() for c in text)


def scalar(value: Any) -> str:
    """One value on one line."""
    if not isinstance(value, str):
        return json.dumps(value)
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return "".join(c if c.isprintable() else _escaped(c) for c in json.dumps(value, ensure_ascii=False))


def _escaped(character: str) -> str:
    return f"\\U{ord(character):08x}"

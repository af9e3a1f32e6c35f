"""Everything the command line prints, and asks."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

import click


def line(text: str = "") -> None:
    """One line for the reader."""
    print(text, flush=True)


def piece(text: str) -> None:
    """Part of a line, at once."""
    print(text, end="", flush=True)


def document(value: Any, *, of_many: bool = False) -> None:
    """One JSON document for a program. of_many: on a line of its own, since more come."""
    print(json.dumps(value, indent=None if of_many else 2), flush=True)


def note(text: str) -> None:
    """What a reader should know, to standard error: standard output may be piped on."""
    print(text, file=sys.stderr, flush=True)


def error(text: str) -> None:
    """What went wrong, to standard error."""
    print(f"{_painted('error:', sys.stderr, fg='red', bold=True)} {text}", file=sys.stderr, flush=True)


def confirm(question: str, yes: bool, as_json: bool) -> None:
    """Ask before what cannot be undone. Raises click.Abort at no."""
    if yes:
        return
    if as_json:
        raise click.UsageError("--json cannot ask: give --yes, too")
    click.confirm(question, abort=True)


@contextmanager
def remains(*lines: str) -> Iterator[None]:
    """Ctrl-C says what remains, and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        for line in lines:
            note(line)
        raise


def typed() -> str:
    """This command as it was typed, to be typed again."""
    return shlex.join(["hyperpd", *sys.argv[1:]])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their widest cell."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for number, row in enumerate([head, *rows]):
        text = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        line(text if number else _painted(text, sys.stdout, bold=True))


def _painted(text: str, stream: TextIO, **style: Any) -> str:
    """With colour on a terminal alone, and not where NO_COLOR (https://no-color.org) or TERM=dumb forbids it."""
    plain = not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plain else click.style(text, **style)

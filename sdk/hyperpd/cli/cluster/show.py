"""How clusters, calls and progress look."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from hyperpd.cli import output

if TYPE_CHECKING:
    from hyperpd.cluster.aws import Call
    from hyperpd.cluster.progress import Progress, Tell
    from hyperpd.cluster.state import Status


def progress(as_json: bool) -> Tell:
    """Prints what happens; to standard error where standard output is one document."""
    from hyperpd.cluster.progress import Happened, Seen
    from hyperpd.cluster.watch import duration

    say = output.note if as_json else output.line

    def tell(one: Progress) -> None:
        if isinstance(one, Seen):
            typical = " (typically {} to {} min)".format(*one.typical_min) if one.typical_min else ""
            say(f"{duration(one.elapsed_s):>12}{typical}  {one.status.line()}")
        elif isinstance(one, Happened):
            say(f"{'':12}  event {one.event.line()}")
        else:
            say(one.text)

    return tell


def status(found: Status) -> None:
    """A cluster and its groups."""
    from hyperpd.cluster.command import command

    output.line(f"{found.name}: {found.status}  {found.orchestrator}{', continuous' if found.continuous else ''}")
    output.line(f"  {found.arn}")
    if found.failure:
        output.line(f"  {found.failure}")
    rows = [
        [
            group.name,
            group.role,
            "/".join(group.instance_types),
            f"{group.current}/{group.target}",
            str(group.minimum or "-"),
            group.status,
            group.release or "-",
            group.image_status or "-",
        ]
        for group in found.groups
    ]
    output.table(["GROUP", "ROLE", "TYPE", "NODES", "MIN", "STATUS", "RELEASE", "IMAGE"], rows)
    if found.status == "InService" and not found.ready:
        again = command("events", found.name, found.arn.split(":")[3])
        output.note(f"in service without all its nodes: {again}")


def calls(withheld: Iterable[Call]) -> None:
    """Requests, as they would be sent."""
    for one in withheld:
        output.line(f"would call {one.service} {one.operation} with")
        output.document(plain(one.parameters))


def document(found: Status) -> dict[str, Any]:
    """A cluster for a program."""
    return {**asdict(found), "ready": found.ready}


def call_documents(withheld: Iterable[Call]) -> list[dict[str, Any]]:
    return [plain(asdict(one)) for one in withheld]


def plain(value: Any) -> Any:
    """For JSON: a file's bytes by size and SHA-256, times as ISO 8601 texts."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, bytes):
        return {"bytes": len(value), "sha256": hashlib.sha256(value).hexdigest()}
    if isinstance(value, datetime | date):
        return value.isoformat()
    return json.loads(json.dumps(value))


def lines(found: Sequence[str], indent: str = "  ") -> None:
    for line in found:
        output.line(indent + line)

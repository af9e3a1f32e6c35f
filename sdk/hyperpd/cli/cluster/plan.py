"""hyperpd cluster plan: what stands in the way, what it costs, and what create or update would do."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hyperpd.cli import output
from hyperpd.cli.cluster.options import file_argument, json_option

if TYPE_CHECKING:
    from hyperpd.cluster import Plan


def _prices(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> dict[str, float]:
    """TYPE=DOLLARS, as often as one likes."""
    found = {}
    for one in given:
        kind, _, usd = one.partition("=")
        try:
            found[kind] = float(usd)
        except ValueError:
            kind = ""
        if not kind.startswith("ml.") or not 0 <= found[kind] < math.inf:
            raise click.BadParameter(f"{one}: write it as ml.p5.48xlarge=60.50, dollars for one instance and hour")
    return found


@click.command()
@file_argument
@click.option("--offline", is_flag=True, help="Ask nothing of AWS; says what is not checked then.")
@click.option(
    "--price", "prices", multiple=True, callback=_prices, metavar="TYPE=DOLLARS", help="Your price of a type, per hour."
)
@click.option("--requests", is_flag=True, help="Also print the exact requests.")
@json_option
def plan(file: Path, offline: bool, prices: dict[str, float], requests: bool, as_json: bool) -> None:
    """Show what stands in the way of FILE's cluster, what it costs, and what create would make of it or update would
    change. All problems at once, each with its fix. Reads the account, and changes nothing."""
    from hyperpd.cli.cluster import show
    from hyperpd.cluster import Cluster, load

    spec = load(file)
    flight = Cluster.preflight(spec, prices=prices, offline=offline)
    if not as_json:
        for line in flight.lines():
            output.line(line)
    error = flight.error()
    # What would be sent is a question to the account, and one about a cluster that can be made.
    found = Cluster.plan(spec) if flight.place and not error else None
    if as_json:
        output.document({"preflight": flight.document()} | (_document(found) if found else {}))
    elif found:
        output.line()
        _tell(found)
        if requests:
            show.calls(found.calls)
    if error:
        output.error(f"problems in the way of {spec.name}: {len(flight.of('problem'))}; nothing was changed")
        sys.exit(error.exit_code)


def _tell(found: Plan) -> None:
    made = found.blueprint
    output.line(f"{made.spec.name}: {made.spec.orchestrator.kind} in {made.place.region}, account {made.place.account}")
    rows = [
        [
            name,
            group.instance_type or " or ".join(group.instance_types),
            str(group.count),
            "-" if group.min_count is None else str(group.min_count),
            (group.slurm.node if group.slurm else ""),
        ]
        for name, group in made.groups.items()
    ]
    output.table(["GROUP", "TYPE", "NODES", "MIN", "SLURM"], rows)
    output.line(f"role: {made.names.role} (made)" if made.makes_role else f"role: {made.spec.role or 'of each group'}")
    if made.scripts:
        output.line(f"bucket: {made.bucket} ({'made' if made.makes_bucket else 'given'})")
    for note in found.notes:
        output.note(f"note: {note}")
    if found.changes is None:
        output.line(f"there is no such cluster yet: hyperpd cluster create makes it, in {len(found.calls)} calls")
    elif not found.changes:
        output.line("it is there as the file says; nothing to do")
    else:
        output.line("it is there, and differs; hyperpd cluster update would change:")
        for line in found.changes.lines():
            output.line(f"  {line}")


def _document(found: Plan) -> dict[str, Any]:
    from hyperpd.cli.cluster import show

    made = found.blueprint
    return {
        "cluster": made.spec.name,
        "account": made.place.account,
        "region": made.place.region,
        "groups": {name: group.model_dump(mode="json", exclude_defaults=True) for name, group in made.groups.items()},
        "makes": {
            "role": made.names.role if made.makes_role else None,
            "bucket": made.bucket if made.makes_bucket else None,
        },
        "status": show.document(found.status) if found.status else None,
        "changes": None if found.changes is None else show.plain([change_of(one) for one in found.changes.changes]),
        "impossible": list(found.changes.impossible) if found.changes else [],
        "notes": list(found.notes),
        "requests": show.call_documents(found.calls),
    }


def change_of(one: Any) -> dict[str, Any]:
    """A change for a program."""
    return {"path": one.path, "was": one.was, "becomes": one.becomes}

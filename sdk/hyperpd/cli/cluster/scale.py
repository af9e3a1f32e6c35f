"""hyperpd cluster scale."""

from __future__ import annotations

import click

from hyperpd.cli import output
from hyperpd.cli.cluster.options import (
    again,
    cluster_argument,
    dry_run_option,
    json_option,
    named,
    region_option,
    wait_options,
)


@click.command()
@cluster_argument
@click.argument("counts", metavar="GROUP=N...", nargs=-1, required=True)
@region_option
@dry_run_option
@wait_options
@json_option
def scale(
    cluster: str,
    counts: tuple[str, ...],
    region: str | None,
    dry_run: bool,
    no_wait: bool,
    timeout_min: float,
    as_json: bool,
) -> None:
    """Set how many nodes groups of CLUSTER have, as in prefill=4 decode=2; all else of them stays.

    The cluster's file then says something else: write the numbers there, too.
    """
    from hyperpd.cli.cluster import show

    wanted = dict(_count(one) for one in counts)
    found, tell = named(cluster, region), show.progress(as_json)
    found.aws.dry = dry_run
    changes = found.scale(wanted, tell if not dry_run else (lambda _: None))
    if dry_run:
        if as_json:
            output.document({"sent": False, "requests": show.call_documents(found.aws.withheld)})
        else:
            show.calls(found.aws.withheld)
        return
    status = None
    if changes.request and not no_wait:
        with output.remains(f"the cluster goes on without you: {again('watch', found.name, found)}"):
            status = found.wait(tell, expect=wanted, timeout_s=timeout_min * 60)
    if as_json:
        sent = changes.request is not None
        output.document({"sent": sent, "counts": wanted, "cluster": show.document(status) if status else None})
    elif not changes:
        output.line("it has these numbers already")


def _count(text: str) -> tuple[str, int]:
    group, _, count = text.partition("=")
    if not (group and count.isdecimal()):
        raise click.BadParameter(f"{text}: give GROUP=N, as in prefill=4", param_hint="GROUP=N")
    return group, int(count)

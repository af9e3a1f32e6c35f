"""hyperpd cluster delete."""

from __future__ import annotations

import click

from hyperpd.cli import output
from hyperpd.cli.cluster.options import (
    cluster_argument,
    dry_run_option,
    json_option,
    named,
    region_option,
    timeout_option,
    written,
    yes_option,
)


@click.command()
@cluster_argument
@region_option
@dry_run_option
@yes_option
@timeout_option
@json_option
def delete(cluster: str, region: str | None, dry_run: bool, yes: bool, timeout_min: float, as_json: bool) -> None:
    """Delete CLUSTER and what was made for it; shows first what goes and what stays. Run again after it was cut off,
    it goes on where it was; give the file where it names a bucket, since nothing else tells of it then."""
    from dataclasses import asdict

    from hyperpd.cli.cluster import show

    found, spec = named(cluster, region), written(cluster)
    bucket = (spec.bucket if spec else None) or ""
    removal = found.removal(bucket)
    if not as_json:
        output.line("goes:")
        show.lines(removal.lines() or ["nothing: there is no such cluster, and nothing made for it"])
        if not (removal.cluster or spec):
            output.note("a bucket that its file names was not looked into: give the file instead of the name")
        if removal.kept:
            output.line("stays, since hyperpd did not make it:")
            show.lines(removal.kept)
    if removal and not dry_run:
        output.confirm(f"Delete {found.name}?", yes, as_json)
        with output.remains(f"run it again and it goes on where it was: {output.typed()}"):
            found.delete(show.progress(as_json), bucket=bucket, timeout_s=timeout_min * 60)
    if as_json:
        output.document({"deleted": bool(removal) and not dry_run, **show.plain(asdict(removal))})

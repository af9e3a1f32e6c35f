"""hyperpd cluster import: the file of a cluster that was made elsewhere."""

from __future__ import annotations

from pathlib import Path

import click

from hyperpd.cli import output
from hyperpd.cli.cluster.options import json_option, region_option


@click.command("import")
@click.argument("name")
@click.option("-o", "--output", "out", type=click.Path(dir_okay=False, path_type=Path), help="File to write.")
@region_option
@json_option
def adopt(name: str, out: Path | None, region: str | None, as_json: bool) -> None:
    """Write the cluster file of the cluster NAME, made in the console, by hyp or elsewhere; then update, scale, patch
    and the others know it. A plan of the file shows no difference. Nothing of the cluster is changed."""
    from hyperpd.cluster import Cluster, dump
    from hyperpd.errors import RecipeError

    if out and out.exists():
        raise RecipeError(str(out), ["is there already; name another file, or remove it"])
    spec, unsaid = Cluster(name, region=region).spec()
    text = dump(spec)
    if out:
        out.write_text(text)
    if as_json:
        output.document(
            {
                "file": str(out) if out else None,
                "spec": spec.model_dump(mode="json", exclude_unset=True),
                "unsaid": unsaid,
            }
        )
    elif out:
        output.line(f"{out} written; hyperpd cluster plan {out} shows no difference")
    else:
        output.piece(text)
    for one in unsaid:
        output.note(f"not in the file, and kept by updates: {one}")

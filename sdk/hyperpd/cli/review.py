"""hyperpd review: the pack for a network and compliance review."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hyperpd.cli import output

if TYPE_CHECKING:
    from hyperpd.cluster.spec import ClusterSpec
    from hyperpd.recipe import RecipeFile


@click.command()
@click.argument("file", metavar="CLUSTER_FILE", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "-o", "--out", type=click.Path(file_okay=False, path_type=Path), help="Write review.md and review.json here."
)
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Option of the target kubernetes, as you render."
)
@click.option("--account", help="Account, 12 digits; default: that of your credentials.")
@click.option("--region", help="Region; default: the file's, or that of your AWS configuration.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def review(
    file: Path, out: Path | None, settings: tuple[str, ...], account: str | None, region: str | None, as_json: bool
) -> None:
    """Write what a network and compliance review asks of CLUSTER_FILE's cluster: every flow and port, what encrypts it
    and what does not, VPC endpoints, each IAM action and why.

    With recipe: in the file, flows are those of its rendered NetworkPolicies. What nobody proved is marked unverified.
    """
    import json
    from datetime import UTC, datetime

    from hyperpd.cli.iam import place
    from hyperpd.cluster import load
    from hyperpd.cluster.blueprint import blueprint
    from hyperpd.cluster.review import review as reviewed
    from hyperpd.cluster.review_page import markdown

    spec = load(file)
    recipe = _recipe(spec)
    plan = blueprint(spec, place(account, region or spec.region))
    found = reviewed(
        plan, recipe.recipe if recipe else None, _policies(spec, recipe, settings), datetime.now(UTC).date()
    )
    page = markdown(found)
    if out:
        out.mkdir(parents=True, exist_ok=True)
        (out / "review.md").write_text(page)
        (out / "review.json").write_text(json.dumps(found.document(), indent=2) + "\n")
    if as_json:
        output.document(found.document())
    elif out:
        output.line(f"{out / 'review.md'} and {out / 'review.json'} written")
    else:
        output.piece(page)


def _recipe(spec: ClusterSpec) -> RecipeFile | None:
    from hyperpd.recipe import load

    return load(spec.recipe) if spec.recipe else None


def _policies(spec: ClusterSpec, recipe: RecipeFile | None, settings: tuple[str, ...]) -> list[dict[str, Any]]:
    """The NetworkPolicies that are rendered; none without a recipe, or on Slurm."""
    from hyperpd import deploy
    from hyperpd.deploy.kubernetes import network
    from hyperpd.deploy.kubernetes.fleet import Fleet

    if recipe is None or spec.orchestrator.kind != "eks":
        return []
    options = deploy.options(deploy.target("kubernetes"), settings)
    return [dict(one.body) for one in network.policies(Fleet(recipe, options)) if isinstance(one.body, dict)]

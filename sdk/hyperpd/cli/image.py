"""hyperpd image: build the container image, push it, mirror a recipe into a closed network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hyperpd.cli import completion, output
from hyperpd.cli.commands import Group

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hyperpd.cli.documents.machine import ImageBuilt, ImagePushed, Mirrored

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)
_json = click.option("--json", "as_json", is_flag=True, help="One JSON document; no progress.")
_dry_run = click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")


@click.group(cls=Group)
def image() -> None:
    """Build, push and mirror the container image.

    Tools of this machine do the work (docker, buildah, skopeo), with their own logins. Verified with
    buildah (a small Dockerfile) and skopeo, a registry on the same machine and a stand-in for S3.
    Unverified, nobody has reported one yet: a build of the CUDA image, CodeBuild, ECR, a docker daemon, real S3.
    """


@image.command()
@click.option("--tag", help="Name of the image; default: hyperpd:VERSION, or hyperpd-gateway:VERSION without engine.")
@click.option("--base", help="Base image; default: the Dockerfile's vLLM image, or Python's without engine.")
@click.option(
    "--engine",
    type=click.Choice(["gpu", "none"]),
    default="gpu",
    show_default=True,
    help="gpu: every role (unverified); none: the gateway alone.",
)
@click.option("--efa-sha256", metavar="SHA256", help="Checksum of the EFA installer that you trust.")
@click.option("--no-efa", is_flag=True, help="Leave EFA out.")
@click.option(
    "--tool",
    type=click.Choice(["docker", "buildah", "codebuild"]),
    help="Default: docker if its daemon answers, else buildah, else codebuild.",
)
@click.option("--context", type=_FOLDER, default=".", help="A checkout of hyperpd; default: the one you are in.")
@click.option(
    "--output",
    "template",
    type=_FILE,
    default="hyperpd-codebuild.yaml",
    show_default=True,
    help="codebuild: the file that is written.",
)
@_dry_run
@_json
def build(
    tag: str | None,
    base: str | None,
    engine: str,
    efa_sha256: str | None,
    no_efa: bool,
    tool: str | None,
    context: Path,
    template: Path,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Build the image from a checkout. A build of the CUDA image (--engine gpu) is unverified.

    With neither docker nor buildah, or with --tool codebuild, nothing is built: a CloudFormation
    template is written, with a CodeBuild project (its buildspec inside, privileged since it runs docker)
    and a role that may push to one ECR repository. The commands to start it are printed. Unverified.
    """
    from hyperpd.image import build as build_
    from hyperpd.image import tools

    arguments = build_.build_arguments(engine, base, efa_sha256, no_efa)
    checkout = build_.checkout(context)
    tag = tag or build_.default_tag(engine)
    tools.reference(tag, "--tag")
    by = tools.tool(tool) if tool != "codebuild" else None
    if by:
        shell = tools.Shell(dry_run)
        with output.remains(f"what {by.name} has built so far is in its cache; run it again: {output.typed()}"):
            by.build(shell, checkout, tag, arguments | build_.revision(checkout))
        built: ImageBuilt = {"tool": by.name, "image": tag, "commands": shell.commands}
        _tell(as_json, built, shell.commands if dry_run else [tag])
        return
    text, lines = build_.codebuild(tag, arguments | build_.revision(checkout, dirty=""), checkout, template)
    if not dry_run:
        template.write_text(text)
    why = "" if tool else "# neither docker nor buildah can be used here\n"
    shown = [f"{why}# unverified; CodeBuild costs money by the minute; what is not committed is not built", *lines]
    built = {"tool": "codebuild", "image": tag, "file": str(template), "template": text, "commands": lines}
    _tell(as_json, built, [*([text] if dry_run else [f"# written: {template}"]), *shown])


@image.command()
@click.argument("tag")
@click.argument("repository")
@click.option("--tool", type=click.Choice(["docker", "buildah"]), help="Default: docker if its daemon answers.")
@_dry_run
@_json
def push(tag: str, repository: str, tool: str | None, dry_run: bool, as_json: bool) -> None:
    """Push the local image TAG to REPOSITORY (HOST/PATH, or HOST/PATH:TAG); prints it with its digest.

    Log in with the tool first. ECR wants the repository to exist: aws ecr create-repository (unverified).
    """
    from hyperpd.image import tools

    shell = tools.Shell(dry_run)
    with output.remains(f"layers that were sent stay; run it again, and the rest is sent: {output.typed()}"):
        pushed = tools.push(shell, tools.must(tools.tool(tool)), tag, repository)
    document: ImagePushed = {"image": pushed, "commands": shell.commands}
    _tell(as_json, document, shell.commands if dry_run else [pushed])


@image.command()
@click.argument("recipe", shell_complete=completion.recipe)
@click.option("--registry", required=True, metavar="HOST/PATH", help="Your registry.")
@click.option("--image", "source", help="The image to copy, instead of the recipe's.")
@click.option("--model-folder", type=_FOLDER, help="The model's files here; needed for a model from a hub.")
@click.option("--bucket", metavar="S3://B/P", help="Where the model folder's files go, below the model's name.")
@click.option("--model-path", help="Folder of the model on the machines; default: the recipe's, or /models/NAME.")
@click.option("-o", "--output", "out", type=_FILE, required=True, help="The recipe for the closed network.")
@_dry_run
@_json
def mirror(
    recipe: str,
    registry: str,
    source: str | None,
    model_folder: Path | None,
    bucket: str | None,
    model_path: str | None,
    out: Path,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Copy what RECIPE needs into a closed network, and write a recipe that names nothing outside of it.

    The image goes to your registry (by skopeo, with every architecture and the digest unchanged; else
    by docker or buildah, this machine's architecture alone) and is pinned by digest. The model goes to
    S3; files with the same size and SHA-256 are not sent again, so an upload that broke off goes on
    with the file it was at. Getting the model from S3 to the machines is a line in the new recipe.

    Helm charts: hyperpd ships none so far, so none are mirrored. ECR and real S3 are unverified.
    """
    from hyperpd.errors import RecipeError
    from hyperpd.image import mirror as mirror_
    from hyperpd.image import tools
    from hyperpd.recipe import load

    file = load(recipe)
    if out.resolve() == file.path:
        raise RecipeError(str(out), ["this is the recipe itself; write to another file"])
    if not out.resolve().parent.is_dir():
        raise RecipeError(str(out), ["no such folder; make it first"])
    plan = mirror_.plan_mirror(file, registry, image=source, bucket=bucket, folder=model_folder, model_path=model_path)
    shell = tools.Shell(dry_run)
    uploaded = mirror_.Uploaded()
    stays = f"what was sent stays, {out} is not written"
    with output.remains(f"{stays}; run it again, and the rest is sent: {output.typed()}"):
        digest = mirror_.copy_image(shell, plan.source, plan.target)
        if model_folder and not dry_run:
            uploaded = mirror_.upload(model_folder, plan.place, (lambda _: None) if as_json else output.line)
    text = plan.recipe(digest or plan.source.digest)
    lines = list(shell.commands)
    if dry_run:
        files = mirror_.model_files(model_folder) if model_folder else []
        lines += [f"# upload {name} to {plan.place}/{name.as_posix()}" for name in files]
        lines += [f"# write {out}" + ("" if plan.source.digest else ", the tag replaced by the digest") + ":", text]
    else:
        out.write_text(text)
        sent = f"{uploaded.files} files uploaded ({uploaded.sent_bytes:,} bytes), {uploaded.skipped} there already"
        kept = "model: not copied (no --model-folder)"
        lines = [f"image: {plan.target.repository}@{digest}", f"model: {plan.place}, {sent}" if model_folder else kept]
        lines += [f"recipe: {out}"]
    document: Mirrored = {
        "image": f"{plan.target.repository}@{digest}" if digest else str(plan.target),
        "model": plan.place,
        "uploaded": uploaded.files,
        "skipped": uploaded.skipped,
        "uploaded_bytes": uploaded.sent_bytes,
        "recipe": str(out),
        "commands": shell.commands,
    }
    _tell(as_json, document, lines)


def _tell(as_json: bool, document: Mapping[str, Any], lines: list[str]) -> None:
    if as_json:
        output.document(document)
        return
    for line in lines:
        output.line(line)

"""hyperpd hub: a recipe into a private SageMaker hub, where stock hyp finds it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hyperpd.cli import completion, output
from hyperpd.cli.commands import Group

if TYPE_CHECKING:
    from hyperpd.cli.documents.account import Published, Request, ServedHub
    from hyperpd.deploy import Rendering
    from hyperpd.deploy.hub_recipe import Options
    from hyperpd.recipe import RecipeFile

_TARGET = "hub_recipe"
_LOCAL_BUCKET = "s3://hyperpd-local"
_set = click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="An option of the target hub_recipe; may be repeated."
)
_type = click.option(
    "--type",
    "kind",
    type=click.Choice(["Model", "JsonDoc"]),
    default="Model",
    show_default=True,
    help="Type of the hub's content; hyp takes either. Unverified which of them AWS takes.",
)
_version = click.option("--version", default="1.0.0", show_default=True, help="Version of the hub's content.")


@click.group(cls=Group)
def hub() -> None:
    """Recipes for stock hyp (sagemaker-hyperpod 3.12.0): hyp init hyp-recipe-job, configure, validate, create.

    Verified with hyp 3.12.0 against stand-ins for S3, the hub and Kubernetes. Unverified: a real hub, a real cluster.
    """


@hub.command()
@click.argument("recipe", shell_complete=completion.recipe)
@click.option("--bucket", required=True, metavar="s3://BUCKET/PREFIX", help="Where the two files go.")
@click.option("--hub", "hub_name", required=True, help="Your private hub (aws sagemaker create-hub).")
@click.option("--name", help="Name in the hub; default: the recipe's, without dots; of a front, and -front.")
@_version
@_type
@_set
@click.option("--dry-run", is_flag=True, help="Print the exact requests; make none.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def publish(
    recipe: str,
    bucket: str,
    hub_name: str,
    name: str | None,
    version: str,
    kind: str,
    settings: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Upload the template and parameters of RECIPE to S3 and import the document that names them into a hub.

    hyp posts hyperpd's own workers and gateway or, with --set objects=inference_operator, an InferenceEndpointConfig:
    HyperPod's prefill and decode (pdSpec), or with --set front=true hyperpd's gateway before its workers.

    It needs s3:PutObject below the prefix and sagemaker:ImportHubContent on the hub; hyp init then needs s3:GetObject
    and sagemaker:DescribeHubContent. Every content has files of its own: an earlier version keeps its own.
    """
    from hyperpd.deploy.hub_recipe import publish as publishing
    from hyperpd.errors import RecipeError

    bucket = bucket.rstrip("/")
    file, rendering, options = _rendered(recipe, bucket, settings)
    entry = _entry(rendering)
    content = publishing.Content(hub_name, name or publishing.content_name(file.recipe, options), version, kind)
    if wrong := content.problems():
        raise RecipeError("hyperpd hub publish", wrong)
    wanted = publishing.requests(rendering, entry, file.recipe, content)
    stays = f"files that were sent stay at {bucket}"
    with output.remains(f"{stays}; run it again, and they are sent anew and imported: {output.typed()}"):
        arn = content.arn() if dry_run else publishing.send(wanted)
    typed = publishing.commands(arn, file.recipe, options, content.name)
    if as_json:
        shown: list[Request] = [
            {"service": r.service, "operation": r.operation, "parameters": dict(r.parameters)} for r in wanted
        ]
        document: Published = {"sent": not dry_run, "requests": shown, "arn": arn, "commands": typed}
        output.document(document)
        return
    for one in wanted:
        if dry_run:
            output.line(f"would call {one.service} {one.operation} with")
            output.document(dict(one.parameters))
        else:
            s3 = one.service == "s3"
            output.line(f"{one.operation}: " + ("s3://{Bucket}/{Key}".format_map(one.parameters) if s3 else arn))
    for lost in rendering.not_expressed:
        output.note(f"not expressed by {_TARGET}: {lost}")
    _type_this(recipe, bucket, settings, typed)


@hub.command("serve-local")
@click.argument("recipe", shell_complete=completion.recipe)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8090,
    show_default=True,
    help="On 127.0.0.1; 0 takes a free one.",
)
@click.option("--out", "folder", type=click.Path(file_okay=False, path_type=Path), help="Also write the files there.")
@_set
@click.option("--json", "as_json", is_flag=True, help="One JSON document, once it serves.")
def serve_local(recipe: str, port: int, folder: Path | None, settings: tuple[str, ...], as_json: bool) -> None:
    """Serve RECIPE as a hub does, on this machine, so that hyp init works without an account. Ctrl-C ends it.

    A stand-in: it answers DescribeHubContent for this one recipe, and S3's GetObject for its two files.
    """
    from hyperpd import deploy
    from hyperpd.cli.render import write
    from hyperpd.deploy.hub_recipe import local, publish
    from hyperpd.errors import RecipeError

    if any(one.partition("=")[0].strip() == "bucket" for one in settings):
        raise RecipeError("hyperpd hub serve-local", [f"--set bucket: it serves {_LOCAL_BUCKET} itself; remove it"])
    file, rendering, options = _rendered(recipe, _LOCAL_BUCKET, settings)
    entry, content = _entry(rendering), publish.Content("local", publish.content_name(file.recipe, options))
    texts = publish.files(rendering)
    objects = {
        entry[key].removeprefix("s3://"): texts[entry[key].rpartition("/")[2]]
        for key in ("HpEksOverrideParamsS3Uri", "HpEksPayloadTemplateS3Uri")
    }
    try:
        server = local.server(texts["hub-document.json"], objects, content, port)
    except OSError as error:
        raise RecipeError("--port", [f"127.0.0.1:{port}: {error.strerror}; give another, or 0"]) from None
    with server:
        if folder:
            given = (*settings, f"bucket={_LOCAL_BUCKET}")
            for called, text in deploy.texts(rendering, file, given).items():
                write(folder / called, text)
        url = f"http://127.0.0.1:{server.server_port}"
        arn = content.arn(local.REGION, local.ACCOUNT)
        # hyp init alone asks the stand-in: a real cluster's login knows no stand-in's keys.
        before, init, *rest = publish.commands(arn, file.recipe, options, content.name)
        asked = " ".join(f"{key}={value}" for key, value in local.environment(url).items())
        typed = [before, f"{asked} {init}", *rest]
        if as_json:
            document: ServedHub = {"url": url, "arn": arn, "commands": typed}
            output.document(document)
        else:
            output.line(f"a stand-in for a hub and its bucket, with {file.recipe.name}, on {url}; Ctrl-C ends it")
            _type_this(recipe, _LOCAL_BUCKET, settings, typed)
        with output.remains("nothing remains of the hub" + (f"; its files are in {folder}" if folder else "")):
            server.serve_forever()


def _rendered(recipe: str, bucket: str, settings: tuple[str, ...]) -> tuple[RecipeFile, Rendering, Options]:
    from hyperpd import deploy
    from hyperpd.recipe import load

    file, given = load(recipe), (*settings, f"bucket={bucket}")
    options: Options = deploy.options(deploy.target(_TARGET), given)
    return file, deploy.render(file, _TARGET, given), options


def _entry(rendering: Rendering) -> dict[str, Any]:
    """The recipe's entry in the hub's document, with the files' addresses."""
    import json

    from hyperpd.deploy.hub_recipe import publish, template

    entry: dict[str, Any] = json.loads(publish.files(rendering)[template.HUB_DOCUMENT])["RecipeCollection"][0]
    return entry


def _type_this(recipe: str, bucket: str, settings: tuple[str, ...], typed: list[str]) -> None:
    given = "".join(f" --set {shlex.quote(one)}" for one in (*settings, f"bucket={bucket}"))
    output.line("then, for the cluster of your kubectl:")
    output.line(f"  hyperpd render {shlex.quote(recipe)} --target {_TARGET}{given} --out .")
    for line in typed:
        output.line(f"  {line}")

"""The requests that put a rendered recipe into a private hub, and what a user of hyp types then."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hyperpd.deploy import Rendering
from hyperpd.deploy.hub_recipe import BEFORE, objects, template
from hyperpd.deploy.hub_recipe.options import Options
from hyperpd.deploy.target import endpoint_name
from hyperpd.errors import CloudError, NotReady
from hyperpd.recipe import Recipe

_TYPES = {template.TEMPLATE: "text/plain; charset=utf-8", template.PARAMETERS: "application/json"}


# As botocore's model of SageMaker spells them; the tests hold them against it.
NAME = r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}"
HUB = rf"(arn:[a-z0-9-\.]{{1,63}}:sagemaker:\w+(?:-\w+)+:(\d{{12}}|aws):hub\/)?{NAME}"
VERSION = r"\d{1,4}.\d{1,4}.\d{1,4}"


@dataclass(frozen=True, slots=True)
class Request:
    """One call of boto3."""

    service: str
    operation: str  # as boto3 calls it
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Content:
    """Where in which hub a recipe goes. kind: what AWS calls the content's type."""

    hub: str
    name: str
    version: str = "1.0.0"
    kind: str = "Model"

    @property
    def schema(self) -> str:
        """Version of the document's schema. Unverified which AWS takes; the document is not one of its schemas."""
        return "2.2.0" if self.kind == "Model" else "1.0.0"

    def arn(self, region: str = "REGION", account: str = "ACCOUNT") -> str:
        hub = self.hub.rpartition("/")[2]
        return f"arn:aws:sagemaker:{region}:{account}:hub-content/{hub}/{self.kind}/{self.name}/{self.version}"

    def problems(self) -> list[str]:
        """What SageMaker would refuse, by the command's options."""
        given = {"--hub": (HUB, self.hub), "--name": (NAME, self.name), "--version": (VERSION, self.version)}
        wrong = {option: (pattern, value) for option, (pattern, value) in given.items() if not _whole(pattern, value)}
        return [f"{option}: SageMaker takes {pattern} (found {value!r})" for option, (pattern, value) in wrong.items()]


def _whole(pattern: str, value: str) -> bool:
    return re.fullmatch(pattern, value, re.ASCII) is not None


def content_name(recipe: Recipe, options: Options) -> str:
    """The recipe's name as a hub takes it. A front has one of its own: it goes beside its engines."""
    return endpoint_name(recipe) + ("-front" if options.front else "")


def files(rendering: Rendering) -> dict[str, str]:
    """The texts that hyp reads, by file."""
    return {one.file: one.body for one in rendering.documents if isinstance(one.body, str)}


def requests(rendering: Rendering, entry: Mapping[str, Any], recipe: Recipe, content: Content) -> list[Request]:
    """Both files to S3, then the document that names them: a hub never names what is not there yet.

    entry: of the hub's document, with the files' addresses.
    """
    texts = files(rendering)
    found = []
    for file, uri in (
        (template.PARAMETERS, entry["HpEksOverrideParamsS3Uri"]),
        (template.TEMPLATE, entry["HpEksPayloadTemplateS3Uri"]),
    ):
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        put = {"Bucket": bucket, "Key": key, "Body": texts[file], "ContentType": _TYPES[file]}
        found.append(Request("s3", "put_object", put))
    content_request = {
        "HubName": content.hub,
        "HubContentName": content.name,
        "HubContentType": content.kind,
        "HubContentVersion": content.version,
        "DocumentSchemaVersion": content.schema,
        "HubContentDisplayName": recipe.name,
        "HubContentDescription": " ".join((recipe.description or recipe.name).split())[:1023],
        "HubContentDocument": json.dumps(json.loads(texts[template.HUB_DOCUMENT])),  # one line: its pattern is .*
    }
    found.append(Request("sagemaker", "import_hub_content", content_request))
    return found


def send(wanted: list[Request]) -> str:
    """Make the requests, in order. Returns the ARN of the hub's content.

    Raises NotReady without boto3, CloudError when AWS refuses.
    """
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        raise NotReady("publishing needs boto3: pip install 'hyperpd[aws]'") from None
    answer: dict[str, Any] = {}
    for request in wanted:
        parameters = dict(request.parameters)
        if isinstance(parameters.get("Body"), str):
            parameters["Body"] = parameters["Body"].encode()
        try:
            answer = getattr(boto3.client(request.service), request.operation)(**parameters)
        except ClientError as error:
            raise CloudError(f"{request.service} {request.operation}: {error}\n{_hint(request)}") from None
        except BotoCoreError as error:
            hint = "AWS was not asked: does aws sts get-caller-identity work here, and is a Region set?"
            raise CloudError(f"{request.service} {request.operation}: {error}\n{hint}") from None
    return str(answer["HubContentArn"])


def _hint(request: Request) -> str:
    if request.service == "s3":
        return f"Does the bucket {request.parameters['Bucket']} exist, and may you s3:PutObject there?"
    return (
        f"Does the hub {request.parameters['HubName']} exist (aws sagemaker create-hub), is the version new, and may"
        " you sagemaker:ImportHubContent? If it refuses the document, try another --type or --set technique=SFT"
    )


def commands(arn: str, recipe: Recipe, options: Options, folder: str) -> list[str]:
    """What is typed, in order, until the first answer."""
    form = objects.form(options)
    folder, machine = shlex.quote(folder), form.machines(recipe, options)[0]
    given = {"model-id": arn, "technique": options.technique, "instance-type": machine}
    words = " ".join(f"--{name} {shlex.quote(value)}" for name, value in given.items())
    return [
        f"kubectl apply --filename {BEFORE}",
        f"hyp init hyp-recipe-job {folder} {words}",
        f"cd {folder}",
        "hyp configure --help",
        "hyp validate",
        "hyp create",
        *form.asking(recipe, options),
    ]

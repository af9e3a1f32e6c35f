"""The Python files that send the requests: with boto3, and with the SageMaker SDK's resources."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from textwrap import wrap
from typing import Any

from hyperpd import __version__
from hyperpd.deploy.sagemaker_endpoint import refusals
from hyperpd.deploy.sagemaker_endpoint.endpoint import RECIPE_FILE, Endpoint, Object

_PROVISION_S = 1800  # of an instance and its image, before anything of ours starts
_POLL_S = 30
_LINE = 90  # of names to import, before there is one on each line


def boto3(endpoint: Endpoint, lost: Iterable[str]) -> str:
    """deploy.py: sends what lies beside it, waits, and asks once."""
    return _BOTO3.format(
        header=_header(endpoint, [*lost] or ["nothing"]),
        region=_literal(endpoint.registry["region"]),
        upload=_upload(endpoint),
        poll_s=_POLL_S,
        tries=_waits_s(endpoint) // _POLL_S,
        body=_body(endpoint),
    )


def sdk(endpoint: Endpoint, model: Object, config: Object, create: Object) -> str:
    """deploy_sdk.py: the same requests as calls."""
    calls = (("Model", model), ("EndpointConfig", config))
    created = "".join(
        f"    {name}.create(\n{_arguments(request)}        region=REGION,\n    )\n" for name, request in calls
    )
    created += f"    endpoint = Endpoint.create(\n{_arguments(create)}        region=REGION,\n    )\n"
    shapes = sorted(shape for shape in _SHAPES.values() if re.search(rf"\b{shape}\(", created))
    names = ",\n    ".join(shapes)
    upload = _upload(endpoint)
    return _SDK.format(
        header=_header(endpoint, ()),
        shapes=f"(\n    {names},\n)" if len(names) > _LINE else names.replace(",\n   ", ","),
        region=_literal(endpoint.registry["region"]),
        standard="from pathlib import Path\n\nimport boto3\n" if upload else "\n",
        here="HERE = Path(__file__).resolve().parent\n" if upload else "",
        upload=upload,
        created=created,
        timeout_s=_waits_s(endpoint),
        poll_s=_POLL_S,
        body=_body(endpoint),
    )


def _waits_s(endpoint: Endpoint) -> int:
    download_s = endpoint.recipe.start_timeout_s if endpoint.bucket_and_prefix else 0
    return _PROVISION_S + download_s + refusals.start_s(endpoint.recipe)


def _body(endpoint: Endpoint) -> str:
    return _literal({"model": endpoint.recipe.model.name, "prompt": "Once upon a time", "max_tokens": 16})


def _upload(endpoint: Endpoint) -> str:
    if not (endpoint.carries_recipe and (place := endpoint.bucket_and_prefix)):
        return ""
    bucket, prefix = place
    to = f"{_literal(bucket)}, {_literal(prefix + endpoint.recipe_key)}"
    return (
        "    # The container finds the recipe beside the model's files; its name changes when it does.\n"
        f'    s3 = boto3.client("s3", region_name=REGION)\n    recipe = str(HERE / {_literal(RECIPE_FILE)})\n'
        f"    s3.upload_file(recipe, {to})\n"
    )


def _header(endpoint: Endpoint, lost: Iterable[str]) -> str:
    """What a file begins with, as yaml.texts does it for objects."""
    lines = [
        f"recipe: {endpoint.recipe.name}",
        f"recipe digest: sha256 {endpoint.file.digest}",
        f"target: sagemaker_endpoint, rendered by hyperpd {__version__}",
        *(f"not expressed: {one}" for one in lost),
    ]
    return "\n".join(f"# {part}" for line in lines for part in wrap(line, 110, subsequent_indent="  "))


def _arguments(request: Mapping[str, Any]) -> str:
    return "".join(f"{' ' * 8}{_snake(key)}={_python(key, value, 8)},\n" for key, value in request.items())


# The shapes of sagemaker.core.shapes, by the member that has one.
_SHAPES = {
    "PrimaryContainer": "ContainerDefinition",
    "ModelDataSource": "ModelDataSource",
    "S3DataSource": "S3ModelDataSource",
    "VpcConfig": "VpcConfig",
    "ProductionVariants": "ProductionVariant",
    "Tags": "Tag",
}


def _python(key: str, value: Any, depth: int) -> str:
    """A value as Python text, in ruff's format."""
    inner = " " * (depth + 4)
    if isinstance(value, list):
        items = "".join(f"{inner}{_python(key, item, depth + 4)},\n" for item in value)
        return f"[\n{items}{' ' * depth}]"
    if isinstance(value, Mapping) and key in _SHAPES:
        pairs = (f"{inner}{_snake(name)}={_python(name, one, depth + 4)},\n" for name, one in value.items())
        return f"{_SHAPES[key]}(\n{''.join(pairs)}{' ' * depth})"
    if isinstance(value, Mapping):
        pairs = (f"{inner}{_literal(name)}: {_python(name, one, depth + 4)},\n" for name, one in value.items())
        return f"{{\n{''.join(pairs)}{' ' * depth}}}"
    return str(value) if isinstance(value, bool | int) else _literal(value)


def _literal(value: str | Mapping[str, str | int]) -> str:
    """A text, or a flat mapping, as Python: JSON's escapes are Python's. Nothing that a recipe says goes unescaped."""
    return json.dumps(value, ensure_ascii=False)


def _snake(name: str) -> str:
    """As sagemaker.core names the API's members."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


_LIMITS = """\
# Unverified: no endpoint of this rendering has run on a live account. The requests are held to botocore's model
# of the API, the container's start, /ping, /invocations and end to a stand-in of SageMaker, with CPU engines.
# Whether an instance gives the container enough shared memory for several GPU engines, and runs it as the image's
# user 10001 (AWS advises root), only an account can show.
#
# One instance runs prefill, decode and gateway in one container. InvokeEndpoint takes 6 MiB and has to be answered
# within 60 s: stream what takes longer (InvokeEndpointWithResponseStream). The container is killed 30 s after
# SIGTERM. An update starts the new instance before the old one ends: two for a while."""
_BOTO3 = (
    '''\
"""Create the endpoint, or update it, wait until it serves, and ask it once. Needs boto3 and credentials."""

{header}
#
'''
    + _LIMITS
    + """

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError, WaiterError

HERE = Path(__file__).resolve().parent
REGION = {region}  # of the image, which has to be the endpoint's


def read(name: str) -> Any:
    return json.loads((HERE / name).read_text())


def there(describe: Any, **name: str) -> Any:
    \"\"\"What an object is now, or None where there is none.\"\"\"
    try:
        return describe(**name)
    except ClientError as error:
        if "Could not find" in error.response["Error"]["Message"]:
            return None
        raise


def main() -> None:
    model, config, endpoint = read("2-model.json"), read("3-endpoint-config.json"), read("4-endpoint.json")
    sagemaker = boto3.client("sagemaker", region_name=REGION)
{upload}    # Models and configurations never change: another has another name.
    if not there(sagemaker.describe_model, ModelName=model["ModelName"]):
        sagemaker.create_model(**model)
    wanted = config["EndpointConfigName"]
    if not there(sagemaker.describe_endpoint_config, EndpointConfigName=wanted):
        sagemaker.create_endpoint_config(**config)
    name = endpoint["EndpointName"]
    now = there(sagemaker.describe_endpoint, EndpointName=name)
    if not now:
        sagemaker.create_endpoint(**endpoint)
    elif now["EndpointConfigName"] != wanted:
        sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=wanted)
    delete = f"aws sagemaker delete-endpoint --endpoint-name {{name}} --region {{REGION}}"
    print(f"waiting for {{name}}; its log is /aws/sagemaker/Endpoints/{{name}} in CloudWatch")
    try:
        waiter = sagemaker.get_waiter("endpoint_in_service")
        waiter.wait(EndpointName=name, WaiterConfig={{"Delay": {poll_s}, "MaxAttempts": {tries}}})
    except WaiterError:
        now = sagemaker.describe_endpoint(EndpointName=name)
        why = now.get("FailureReason", "no reason given")
        said = f"{{name}} is {{now['EndpointStatus']}}: {{why}}"
        raise SystemExit(f"{{said}}. One that failed stays so; run this again after {{delete}}") from None
    runtime = boto3.client("sagemaker-runtime", region_name=REGION)
    body = json.dumps({body})
    answer = runtime.invoke_endpoint(EndpointName=name, ContentType="application/json", Body=body)
    print(answer["Body"].read().decode())
    print(f"billed until it is deleted: {{delete}}")


if __name__ == "__main__":
    main()
"""
)
_SDK = (
    '''\
"""Create the endpoint with the SageMaker Python SDK (sagemaker-core 2.27), without ModelBuilder.

It only creates; deploy.py also updates. What is not expressed of the recipe stands there.
"""

{header}
#
'''
    + _LIMITS
    + """

from __future__ import annotations

import json
{standard}from sagemaker.core.resources import Endpoint, EndpointConfig, Model
from sagemaker.core.shapes import {shapes}

{here}REGION = {region}  # of the image, which has to be the endpoint's


def main() -> None:
{upload}{created}    endpoint.wait_for_status("InService", poll={poll_s}, timeout={timeout_s})
    body = json.dumps({body})
    answer = endpoint.invoke(body=body, content_type="application/json", region=REGION)
    print(answer.body.read().decode())
    print("billed until it is deleted: Endpoint.delete, or aws sagemaker delete-endpoint")


if __name__ == "__main__":
    main()
"""
)

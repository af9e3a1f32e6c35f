"""Models, endpoint configurations and endpoints, as far as a deployment needs them."""

from __future__ import annotations

import copy
from typing import Any

from tests.fakes.hyperpod.account import Account, Body, arn, invalid, page

ENDPOINT_S = 300.0  # from created to in service
_KINDS = {"Model": "model", "EndpointConfig": "endpoint-config", "Endpoint": "endpoint"}


def _create(account: Account, kind: str, request: Body) -> Body:
    name = request[f"{kind}Name"]
    if (kind, name) in account.hosting:
        raise invalid(f"Cannot create already existing {_KINDS[kind]} {_arn(kind, name)}.")
    made = copy.deepcopy({field: value for field, value in request.items() if field != "Tags"})
    account.hosting[kind, name] = made | {f"{kind}Arn": _arn(kind, name), "CreationTime": account.clock.now_s}
    account.tags[_arn(kind, name)] = {tag["Key"]: tag["Value"] for tag in request.get("Tags", ())}
    return {f"{kind}Arn": _arn(kind, name)}


def _find(account: Account, kind: str, name: str) -> Body:
    if (kind, name) not in account.hosting:
        raise invalid(f"Could not find {_KINDS[kind]} {_arn(kind, name)}.")
    return account.hosting[kind, name]


def _arn(kind: str, name: str) -> str:
    return arn(_KINDS[kind], name.lower())


def create_model(account: Account, request: Body) -> Body:
    if ("PrimaryContainer" in request) == ("Containers" in request):
        raise invalid("exactly one of PrimaryContainer and Containers")
    if "ExecutionRoleArn" not in request:
        raise invalid("ExecutionRoleArn is required")
    return _create(account, "Model", request)


def create_config(account: Account, request: Body) -> Body:
    for variant in request["ProductionVariants"]:
        if "ModelName" in variant:
            _find(account, "Model", variant["ModelName"])
    return _create(account, "EndpointConfig", request)


def create_endpoint(account: Account, request: Body) -> Body:
    config = _find(account, "EndpointConfig", request["EndpointConfigName"])
    answer = _create(account, "Endpoint", request)
    endpoint = account.hosting["Endpoint", request["EndpointName"]]
    endpoint |= {"EndpointStatus": "Creating", "LastModifiedTime": account.clock.now_s, "Config": config}
    trouble = account.first(lambda each: each.trouble(request["EndpointName"], 0, 0))

    def ready() -> None:
        if endpoint["EndpointStatus"] == "Creating":
            endpoint["EndpointStatus"] = "Failed" if trouble else "InService"
            endpoint["LastModifiedTime"] = account.clock.now_s
            if trouble:
                endpoint["FailureReason"] = trouble.message

    account.clock.after(ENDPOINT_S, ready)
    return answer


def describe_endpoint(account: Account, request: Body) -> Body:
    endpoint = _find(account, "Endpoint", request["EndpointName"])
    hidden = ("Config", "DeploymentConfig")
    body = {field: value for field, value in endpoint.items() if field not in hidden}
    if endpoint["EndpointStatus"] == "InService":
        body["ProductionVariants"] = [_variant(one) for one in endpoint["Config"]["ProductionVariants"]]
    return body


def _variant(config: Body) -> Body:
    count = config.get("InitialInstanceCount", 1)
    weight = config.get("InitialVariantWeight", 1.0)
    counts = {"CurrentInstanceCount": count, "DesiredInstanceCount": count}
    return {"VariantName": config["VariantName"], "CurrentWeight": weight, "DesiredWeight": weight, **counts}


def list_endpoints(account: Account, request: Body) -> Body:
    found: list[dict[str, Any]] = [
        {field: one[field] for field in ("EndpointName", "EndpointArn", "CreationTime", "LastModifiedTime")}
        | {"EndpointStatus": one["EndpointStatus"]}
        for (kind, name), one in account.hosting.items()
        if kind == "Endpoint" and request.get("NameContains", "") in name
        if request.get("StatusEquals") in (None, one["EndpointStatus"])
    ]
    part, token = page(found, request)
    return {"Endpoints": part} | token


def _delete(account: Account, kind: str, request: Body) -> Body:
    _find(account, kind, request[f"{kind}Name"])
    del account.hosting[kind, request[f"{kind}Name"]]
    return {}


OPERATIONS = {
    "CreateModel": create_model,
    "CreateEndpointConfig": create_config,
    "CreateEndpoint": create_endpoint,
    "DescribeModel": lambda account, request: _find(account, "Model", request["ModelName"]),
    "DescribeEndpointConfig": lambda account, request: _find(account, "EndpointConfig", request["EndpointConfigName"]),
    "DescribeEndpoint": describe_endpoint,
    "ListEndpoints": list_endpoints,
    "DeleteModel": lambda account, request: _delete(account, "Model", request),
    "DeleteEndpointConfig": lambda account, request: _delete(account, "EndpointConfig", request),
    "DeleteEndpoint": lambda account, request: _delete(account, "Endpoint", request),
}

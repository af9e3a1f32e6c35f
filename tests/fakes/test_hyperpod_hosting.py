"""Models, endpoints and a hub's contents on the stand-in: what a deployment asks of SageMaker beside the cluster."""

from __future__ import annotations

from typing import Any

import botocore.exceptions
import pytest

from tests.fakes.hyperpod import Control, LifecycleFailure, example

MODEL = {"ModelName": "Pd", "ExecutionRoleArn": example.ROLE, "PrimaryContainer": {"Image": "image"}}
VARIANT = {"VariantName": "all", "ModelName": "Pd", "InstanceType": "ml.g6e.12xlarge", "InitialInstanceCount": 2}


def create(client: Any) -> None:
    client.create_model(**MODEL)
    client.create_endpoint_config(EndpointConfigName="pd", ProductionVariants=[VARIANT])
    client.create_endpoint(EndpointName="pd", EndpointConfigName="pd", Tags=[{"Key": "a", "Value": "b"}])


def test_an_endpoint_comes_and_goes() -> None:
    with Control() as control:
        client = control.client()
        create(client)
        client.get_waiter("endpoint_in_service").wait(EndpointName="pd", WaiterConfig={"Delay": 0, "MaxAttempts": 9})
        described = client.describe_endpoint(EndpointName="pd")
        assert described["ProductionVariants"][0]["CurrentInstanceCount"] == 2
        assert client.describe_model(ModelName="Pd")["PrimaryContainer"] == {"Image": "image"}
        listed = client.list_endpoints(StatusEquals="InService")["Endpoints"]
        assert [one["EndpointName"] for one in listed] == ["pd"]
        with pytest.raises(botocore.exceptions.ClientError, match="already existing model"):
            client.create_model(**MODEL)
        client.delete_endpoint(EndpointName="pd")
        client.delete_endpoint_config(EndpointConfigName="pd")
        client.delete_model(ModelName="Pd")
        with pytest.raises(botocore.exceptions.ClientError, match="Could not find endpoint"):
            client.describe_endpoint(EndpointName="pd")
        assert (
            "sagemaker:CreateEndpoint",
            "arn:aws:sagemaker:us-east-2:111122223333:endpoint/pd",
        ) in control.gate.actions()


def test_an_endpoint_that_fails_says_why() -> None:
    with Control(
        LifecycleFailure("pd", message="The primary container did not pass the ping health check.")
    ) as control:
        client = control.client()
        create(client)
        control.advance(600)
        described = client.describe_endpoint(EndpointName="pd")
        assert (described["EndpointStatus"], "ping" in described["FailureReason"]) == ("Failed", True)


def test_a_configuration_names_a_model() -> None:
    with Control() as control, pytest.raises(botocore.exceptions.ClientError, match="Could not find model"):
        control.client().create_endpoint_config(EndpointConfigName="pd", ProductionVariants=[VARIANT])


def test_a_private_hub_is_there_too() -> None:
    content = {
        "HubName": "pd",
        "HubContentName": "recipe",
        "HubContentType": "Model",
        "HubContentVersion": "1.0.0",
        "DocumentSchemaVersion": "2.0.0",
        "HubContentDocument": "{}",
    }
    with Control() as control:
        client = control.client()
        client.import_hub_content(**content)
        named = {name: content[name] for name in ("HubName", "HubContentName", "HubContentType")}
        assert client.describe_hub_content(**named)["HubContentStatus"] == "Available"
        with pytest.raises(client.exceptions.ResourceNotFound):
            client.describe_hub_content(**{**named, "HubContentName": "no"})

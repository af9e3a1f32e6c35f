"""The stack of a SageMaker endpoint: all workers and the gateway in one container on one instance (role node)."""

from __future__ import annotations

from hyperpd.deploy.console import access, hosted, invoke, lambdas
from hyperpd.deploy.console.cluster import UNVERIFIED, VERSION, bucket_parameter, prefix_parameter
from hyperpd.deploy.console.site import RECIPE, Object, Site, ref, sub
from hyperpd.deploy.sagemaker_endpoint import requests
from hyperpd.deploy.sagemaker_endpoint.permissions import allow
from hyperpd.deploy.target import Document

FILE = "2-endpoint.yaml"
_ASK_S = invoke.ANSWER_S + 20  # with the start of the function


def document(site: Site) -> Document:
    """Role, Model, EndpointConfig, Endpoint, and the function that asks it."""
    body = {
        "AWSTemplateFormatVersion": VERSION,
        "Description": f"hyperpd: a SageMaker endpoint of one instance for the recipe {site.recipe.name}",
        **({"Parameters": parameters(site)} if hosted.alone(site) else {}),
        "Resources": {
            "ExecutionRole": access.role(
                None, "sagemaker.amazonaws.com", access.endpoint(site), site.tags, access.OURS
            ),
            "Model": {"Type": "AWS::SageMaker::Model", "Properties": model(site)},
            "Configuration": {"Type": "AWS::SageMaker::EndpointConfig", "Properties": configuration(site)},
            "Endpoint": {
                "Type": "AWS::SageMaker::Endpoint",
                "Properties": {
                    "EndpointName": ref("AWS::StackName"),
                    "EndpointConfigName": {"Fn::GetAtt": ["Configuration", "EndpointConfigName"]},
                    "Tags": site.tags,
                },
            },
            **_asking(site),
        },
        "Outputs": {"Function": {"Description": "Lambda function to test with", "Value": ref("Ask")}},
    }
    at = "Resources.Model.Properties.PrimaryContainer"
    notes = {
        "Resources.Endpoint": "The instance is billed from here on.",
        "Resources.AskRole": "May ask this one endpoint, and write its log.",
    }
    if hosted.alone(site):
        notes[f"{at}.ModelDataSource"] = "The recipe as it was written; SageMaker puts it to /opt/ml/model."
    return Document(FILE, UNVERIFIED, body, notes)


def _asking(site: Site) -> Object:
    """Who asks: a function that may send this endpoint a request, and nothing else."""
    may = [allow("AskEndpoint", ["sagemaker:InvokeEndpoint"], [ref("Endpoint")])]
    properties: Object = {
        "Description": "Sends the endpoint a request: what its Test tab is given",
        "Handler": "index.asked",
        "Environment": {"Variables": {"ENDPOINT": {"Fn::GetAtt": ["Endpoint", "EndpointName"]}}},
    }
    return lambdas.function(site, "Ask", lambdas.source(invoke), properties, may, timeout_s=_ASK_S)


def parameters(site: Site) -> Object:
    """Where the recipe is, if it travels from the stacks' bucket."""
    return {"Bucket": bucket_parameter(site), "Prefix": prefix_parameter(site)}


def model(site: Site) -> Object:
    """Properties of the Model: CreateModel's members, with the role of this stack and a name of CloudFormation's."""
    request = requests.model(hosted.endpoint(site))
    del request["ModelName"]
    container = dict(request["PrimaryContainer"])
    if hosted.alone(site):
        folder = sub(f"s3://${{Bucket}}/${{Prefix}}/{RECIPE}/")
        source = {"S3Uri": folder, "S3DataType": "S3Prefix", "CompressionType": "None"}
        container["ModelDataSource"] = {"S3DataSource": source}
    role = {"Fn::GetAtt": ["ExecutionRole", "Arn"]}
    return request | {"ExecutionRoleArn": role, "PrimaryContainer": container, "Tags": site.tags}


def configuration(site: Site) -> Object:
    """Properties of the EndpointConfig: CreateEndpointConfig's members, with the Model of this stack."""
    request = requests.config(hosted.endpoint(site))
    del request["EndpointConfigName"]
    (variant,) = request["ProductionVariants"]
    name = {"Fn::GetAtt": ["Model", "ModelName"]}
    # CloudFormation requires the weight, the API does not.
    return request | {
        "ProductionVariants": [variant | {"ModelName": name, "InitialVariantWeight": 1}],
        "Tags": site.tags,
    }

"""The stack of a SageMaker endpoint: all workers and the gateway in one container on one instance (role node)."""

from __future__ import annotations

from hyperpd.deploy.console import access
from hyperpd.deploy.console.cluster import UNVERIFIED, VERSION, bucket_parameter, prefix_parameter
from hyperpd.deploy.console.site import ENDPOINT_START_MAX_S, Object, Site, ref, sub
from hyperpd.deploy.target import Document

FILE, RECIPE_FILE = "2-endpoint.yaml", "recipe/recipe.yaml"
# What starts endpoints: the newest of botocore 1.44, since the engine's CUDA needs a new driver.
AMI = "al2023-ami-sagemaker-inference-gpu-4-1"


def document(site: Site) -> Document:
    """Role, Model, EndpointConfig, Endpoint."""
    body = {
        "AWSTemplateFormatVersion": VERSION,
        "Description": f"hyperpd: a SageMaker endpoint of one instance for the recipe {site.recipe.name}",
        "Parameters": {"Bucket": bucket_parameter(site), "Prefix": prefix_parameter(site)},
        "Resources": {
            "ExecutionRole": access.role(None, "sagemaker.amazonaws.com", access.endpoint(site), site.tags),
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
        },
        "Outputs": {
            "EndpointName": {
                "Description": "To try in the console",
                "Value": {"Fn::GetAtt": ["Endpoint", "EndpointName"]},
            }
        },
    }
    at = "Resources.Model.Properties.PrimaryContainer"
    notes = {
        f"{at}.ModelDataSource": "The recipe as it was written; SageMaker puts it to /opt/ml/model.",
        "Resources.Endpoint": "The instance is billed from here on.",
    }
    return Document(FILE, UNVERIFIED, body, notes)


def model(site: Site) -> Object:
    """Properties of the Model."""
    return {
        "ExecutionRoleArn": {"Fn::GetAtt": ["ExecutionRole", "Arn"]},
        "PrimaryContainer": {
            "Image": site.image,
            "Environment": {
                "HYPERPD_ROLE": "node",
                "HYPERPD_RECIPE": "/opt/ml/model/recipe.yaml",
                "HYPERPD_INSTANCE_TYPE": site.capacity.roles[0].instance.name,
            },
            "ModelDataSource": {
                "S3DataSource": {
                    "S3Uri": sub("s3://${Bucket}/${Prefix}/recipe/"),
                    "S3DataType": "S3Prefix",
                    "CompressionType": "None",
                }
            },
        },
        "Tags": site.tags,
    }


def configuration(site: Site) -> Object:
    """Properties of the EndpointConfig."""
    variant = {
        "VariantName": "all",
        "ModelName": {"Fn::GetAtt": ["Model", "ModelName"]},
        "InstanceType": site.capacity.roles[0].instance.name,
        "InitialInstanceCount": 1,
        "InitialVariantWeight": 1,
        "ContainerStartupHealthCheckTimeoutInSeconds": max(60, min(ENDPOINT_START_MAX_S, site.recipe.start_timeout_s)),
        "InferenceAmiVersion": AMI,
    }
    return {"ProductionVariants": [variant], "Tags": site.tags}

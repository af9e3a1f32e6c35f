"""The stack that serves on EKS without a terminal: the objects of the target kubernetes, and who applies them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from hyperpd.deploy import kubernetes
from hyperpd.deploy.console import access, function
from hyperpd.deploy.console.cluster import UNVERIFIED, VERSION
from hyperpd.deploy.console.site import Object, Site, parameter, ref, sub
from hyperpd.deploy.kubernetes.options import ENGINES_SUFFIX
from hyperpd.deploy.target import Document
from hyperpd.engine import hub_names
from hyperpd.recipe import Recipe, RecipeFile

FILE = "3-serve.yaml"
MODELS = "/opt/hyperpd/data/models"  # lifecycle_scripts/steps/10-storage.sh makes it, of the containers' user
_POLICY = "arn:${AWS::Partition}:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"


def options(site: Site) -> kubernetes.Options:
    """Options of the target kubernetes. Downloads go to the folder that the uploaded lifecycle scripts make."""
    downloads = site.recipe.model.huggingface or hub_names(site.recipe)
    folder = MODELS if downloads else None
    return kubernetes.Options(namespace=site.options.namespace, image=site.options.image, cache_folder=folder)


def served(site: Site) -> Recipe:
    """The recipe without autoscaling: it would need KEDA and a Prometheus, which no click here makes."""
    update: Object = {role: spec.model_copy(update={"autoscaling": None}) for role, spec in site.recipe.roles().items()}
    return site.recipe.model_copy(update=update)


def problems(site: Site) -> list[str]:
    """Why the target kubernetes does not render this recipe."""
    return [
        f"orchestrator eks, as target kubernetes: {one}" for one in kubernetes.problems(served(site), options(site))
    ]


def losses(site: Site) -> list[str]:
    """What the target kubernetes does not say of this recipe."""
    return kubernetes.losses(served(site), options(site))


def objects(site: Site) -> list[dict[str, Any]]:
    """What the target kubernetes renders, in order."""
    file = RecipeFile(served(site), site.file.path, site.file.digest)
    return [dict(one.body) for one in kubernetes.documents(file, options(site)) if not isinstance(one.body, str)]


def document(site: Site) -> Document:
    """Function, its role, what it may do in the cluster, and the one thing it makes."""
    applied = json.dumps(objects(site), indent=1).replace("'", "\\u0027")
    source = Path(str(function.__file__)).read_text()
    name = {"Fn::Select": [1, {"Fn::Split": ["cluster/", ref("EksClusterArn")]}]}
    room = site.options.namespace + (ENGINES_SUFFIX if site.local else "")
    body: Object = {
        "AWSTemplateFormatVersion": VERSION,
        "Description": f"hyperpd: serves the recipe {site.recipe.name} on EKS, and sends it a request",
        "Parameters": {
            "EksClusterArn": parameter(
                "ARN of the EKS cluster",
                site.options.eks_cluster_arn,
                AllowedPattern=r"^arn:aws[a-z-]*:eks:[a-z0-9-]+:[0-9]{12}:cluster/[0-9A-Za-z][A-Za-z0-9_-]*$",
            )
        },
        "Resources": {
            "Log": {
                "Type": "AWS::Logs::LogGroup",
                "DeletionPolicy": "Delete",
                "UpdateReplacePolicy": "Delete",
                "Properties": {
                    "LogGroupName": sub("/aws/lambda/${AWS::StackName}"),
                    "RetentionInDays": 30,
                    "Tags": site.tags,
                },
            },
            "Role": access.role(None, "lambda.amazonaws.com", access.function(), site.tags),
            "Function": {
                "Type": "AWS::Lambda::Function",
                "DependsOn": ["Log"],
                "Properties": {
                    "FunctionName": ref("AWS::StackName"),
                    "Description": "Applies hyperpd's objects; its Test tab sends the gateway a request",
                    "Runtime": "python3.13",
                    "Handler": "index.handler",
                    "Timeout": 300,
                    "MemorySize": 256,
                    "Role": {"Fn::GetAtt": ["Role", "Arn"]},
                    "Environment": {"Variables": {"CLUSTER": name, "NAMESPACE": room, "STACK": ref("AWS::StackId")}},
                    "Code": {"ZipFile": f"{source}\n\nOBJECTS = json.loads(r'''{applied}''')\n"},
                    "Tags": site.tags,
                },
            },
            "Entry": {
                "Type": "AWS::EKS::AccessEntry",
                "Properties": {
                    "ClusterName": name,
                    "PrincipalArn": {"Fn::GetAtt": ["Role", "Arn"]},
                    "AccessPolicies": [{"PolicyArn": sub(_POLICY), "AccessScope": {"Type": "cluster"}}],
                    "Tags": site.tags,
                },
            },
            "Objects": {
                "Type": "AWS::CloudFormation::CustomResource",
                "DependsOn": ["Entry"],
                "Properties": {
                    "ServiceToken": {"Fn::GetAtt": ["Function", "Arn"]},
                    "ServiceTimeout": "600",
                    "Digest": hashlib.sha256(applied.encode()).hexdigest(),
                },
            },
        },
        "Outputs": {
            "Said": {"Description": "What was applied", "Value": {"Fn::GetAtt": ["Objects", "Said"]}},
            "Function": {"Description": "Lambda function to test with", "Value": ref("Function")},
        },
    }
    notes = {
        "Resources.Entry.Properties.AccessPolicies": "The whole cluster: namespaces are in none, and EKS' narrower"
        " policies know no custom resources. The function is administrator of the EKS cluster for as long as this stack"
        " is there: whoever may change its code or take on its role is, too. Delete the stack and its rights go.",
        "Resources.Function.Properties.Environment.Variables.STACK": "Events of CloudFormation for another stack"
        " are refused.",
        "Resources.Objects.Properties.Digest": "Other objects, another digest: then they are applied again.",
    }
    return Document(FILE, UNVERIFIED, body, notes)

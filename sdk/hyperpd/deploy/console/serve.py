"""The stack that serves on EKS without a terminal: the objects of the target kubernetes, who applies them, who asks."""

from __future__ import annotations

import hashlib
import json

from hyperpd.deploy import kubernetes
from hyperpd.deploy.console import access, function, hosted, lambdas
from hyperpd.deploy.console.cluster import UNVERIFIED, VERSION
from hyperpd.deploy.console.options import pattern
from hyperpd.deploy.console.site import Object, Site, parameter, ref, sub
from hyperpd.deploy.kubernetes.fleet import GATED
from hyperpd.deploy.kubernetes.options import ENGINES_SUFFIX
from hyperpd.deploy.sagemaker_endpoint.permissions import allow
from hyperpd.deploy.target import Document
from hyperpd.engine import hub_names
from hyperpd.recipe import Recipe, RecipeFile

FILE = "3-serve.yaml"
MODELS = "/opt/hyperpd/data/models"  # lifecycle_scripts/steps/10-storage.sh makes it, of the containers' user
ACCOUNT = "engines"  # service account of the engines' pods
GATEWAY = "http:gateway:8080"  # as the API server's proxy names it, and its rules
_POLICY = "arn:${AWS::Partition}:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"
_CLUSTER: Object = {"Fn::Select": [1, {"Fn::Split": ["cluster/", ref("EksClusterArn")]}]}  # its name


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
    """Why the target kubernetes does not render this recipe; that a model is gated the console says itself."""
    found = kubernetes.problems(served(site), options(site))
    return [f"orchestrator eks, as target kubernetes: {one}" for one in found if GATED not in one]


def losses(site: Site) -> list[str]:
    """What the target kubernetes does not say of this recipe."""
    return kubernetes.losses(served(site), options(site))


def objects(site: Site) -> list[Object]:
    """What the target kubernetes renders, in order, and the right to ask the gateway."""
    file = RecipeFile(served(site), site.file.path, site.file.digest)
    made = [dict(one.body) for one in kubernetes.documents(file, options(site)) if not isinstance(one.body, str)]
    return [*made, *_asking(site)]


def _room(site: Site) -> str:
    """The gateway's namespace."""
    return site.options.namespace + (ENGINES_SUFFIX if site.local else "")


def _asking(site: Site) -> list[Object]:
    """One right in the cluster, for the group that the asking function is in: POST to the gateway, through the API
    server."""
    rbac = "rbac.authorization.k8s.io"
    meta = {"name": "ask", "namespace": _room(site)}
    rule = {"apiGroups": [""], "resources": ["services/proxy"], "resourceNames": [GATEWAY], "verbs": ["create"]}
    return [
        {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": meta, "rules": [rule]},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "ask"},
            "subjects": [{"apiGroup": rbac, "kind": "Group", "name": _group(site)}],
        },
    ]


def _group(site: Site) -> str:
    return f"{_room(site)}:ask"


def document(site: Site) -> Document:
    """Two functions, their roles, what each may do in the cluster, and the one thing that is made."""
    made = objects(site)
    # In a raw text of Python, which three quotes would end; JSON reads the escape.
    applied = json.dumps(made, indent=1).replace("'", "\\u0027")
    source = lambdas.source(function)
    body: Object = {
        "AWSTemplateFormatVersion": VERSION,
        "Description": f"hyperpd: serves the recipe {site.recipe.name} on EKS, and sends it a request",
        "Parameters": {
            "EksClusterArn": parameter(
                "ARN of the EKS cluster",
                site.options.eks_cluster_arn,
                AllowedPattern=pattern("eks_cluster_arn"),
            )
        },
        "Resources": {
            **_function(
                site,
                "Apply",
                f"{source}\n\nOBJECTS = json.loads(r'''{applied}''')\n",
                {
                    "Description": "Applies hyperpd's objects, for CloudFormation alone",
                    "Handler": "index.changed",
                    "Environment": {"Variables": {"CLUSTER": _CLUSTER, "STACK": ref("AWS::StackId")}},
                },
                {"AccessPolicies": [{"PolicyArn": sub(_POLICY), "AccessScope": {"Type": "cluster"}}]},
                "-apply",
            ),
            **_function(
                site,
                "Ask",
                source,
                {
                    "Description": "Sends the gateway a request: what its Test tab is given",
                    "Handler": "index.asked",
                    "Environment": {"Variables": {"CLUSTER": _CLUSTER, "NAMESPACE": _room(site)}},
                },
                {"KubernetesGroups": [_group(site)]},
            ),
            **_model(site),
            "Objects": {
                "Type": "Custom::Objects",
                "DependsOn": ["ApplyEntry", *(["ModelAccess"] if site.recipe.model.s3 else [])],
                "Properties": {
                    "ServiceToken": {"Fn::GetAtt": ["Apply", "Arn"]},
                    "ServiceTimeout": "600",
                    "Digest": hashlib.sha256(applied.encode()).hexdigest(),
                    "Objects": [function.name(one) for one in made],
                },
            },
        },
        "Outputs": {
            "Said": {"Description": "What was applied", "Value": {"Fn::GetAtt": ["Objects", "Said"]}},
            "Function": {"Description": "Lambda function to test with", "Value": ref("Ask")},
        },
    }
    notes = {
        "Resources.ApplyEntry.Properties.AccessPolicies": "The whole cluster: namespaces are in none, and EKS' narrower"
        " policies know no custom resources. The function is administrator of the EKS cluster for as long as this stack"
        " is there: whoever may change its code or take on its role is, too. Delete the stack and its rights go.",
        "Resources.AskEntry.Properties.KubernetesGroups": "This group may ask the gateway, by the Role that is applied"
        " with the objects, and may do nothing else.",
        "Resources.Apply.Properties.Environment.Variables.STACK": "Events of CloudFormation for another stack"
        " are refused.",
        "Resources.Objects.Properties.Digest": "Other objects, another digest: then they are applied again.",
        "Resources.Objects.Properties.Objects": "What an update no longer has of these it deletes.",
    }
    return Document(FILE, UNVERIFIED, body, notes)


def _function(site: Site, name: str, source: str, properties: Object, entry: Object, suffix: str = "") -> Object:
    """A function, and its entry to the cluster."""
    find = [allow("FindCluster", ["eks:DescribeCluster"], [ref("EksClusterArn")])]
    role = {"Fn::GetAtt": [f"{name}Role", "Arn"]}
    return lambdas.function(site, name, source, properties, find, suffix=suffix) | {
        f"{name}Entry": {
            "Type": "AWS::EKS::AccessEntry",
            "Properties": {"ClusterName": _CLUSTER, "PrincipalArn": role, **entry, "Tags": site.tags},
        }
    }


def _model(site: Site) -> Object:
    """Where the model is in S3: the right of the engines' pods to read it, by an identity of EKS."""
    if not site.recipe.model.s3:
        return {}
    room = site.options.namespace + ENGINES_SUFFIX
    pods = {"eks-cluster-name": _CLUSTER, "kubernetes-namespace": room, "kubernetes-service-account": ACCOUNT}
    demanded = access.OURS | {f"aws:RequestTag/{key}": value for key, value in pods.items()}
    files = access.model(hosted.endpoint(site).bucket_and_prefix)
    return {
        "ModelRole": access.role(None, "pods.eks.amazonaws.com", files, site.tags, demanded),
        "ModelAccess": {
            "Type": "AWS::EKS::PodIdentityAssociation",
            "Properties": {
                "ClusterName": _CLUSTER,
                "Namespace": room,
                "ServiceAccount": ACCOUNT,
                "RoleArn": {"Fn::GetAtt": ["ModelRole", "Arn"]},
                "Tags": site.tags,
            },
        },
    }

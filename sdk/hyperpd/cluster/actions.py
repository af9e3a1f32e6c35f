"""The actions of IAM behind every command that calls AWS: on what, and why. Data.

tests/cluster/test_permissions.py runs each command against stand-ins that deny all else, and fails for an action that
is missing here, and for one that no command uses. sts:GetCallerIdentity needs no permission. What a service does in
the caller's name is here too (iam:PassRole, eks:…), from AWS's user guide and service authorization reference;
unverified on a live account, as is whether an update that adds groups with other roles needs eks:…AccessEntry, too, and
whether an account without SageMaker's service-linked role needs iam:CreateServiceLinkedRole.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal[
    "everything",  # AWS takes no resource for it
    "cluster",
    "clusters",  # all: what they use counts
    "training plans",
    "secret",  # of Slurm's accounting database
    "eks",
    "eks clusters",  # everything, where nodes join EKS
    "add-ons",
    "made role",  # where the file names none
    "made bucket",
    "its role",  # whether made or not
    "its bucket",
    "roles",  # that nodes take on
    "scaler",  # the role that Karpenter takes on
    "callers",
    "bucket",  # of lifecycle files
    "files",  # lifecycle files: the cluster's folder
    "its files",
    "read bucket",  # of lifecycle files that are in S3 already
    "read files",
    "log",
    "log streams",
    "stacks",
    "s3 bucket",  # the one that is given: --bucket
    "s3 files",
    "hub",
    "hub contents",
    "endpoint",  # at SageMaker
]


@dataclass(frozen=True, slots=True)
class Grant:
    """An action, on what, and why a command needs it. optional: without it the command says so, and goes on."""

    action: str
    on: Kind
    why: str
    optional: bool = False


_DESCRIBE = Grant("sagemaker:DescribeCluster", "cluster", "the cluster's status, groups and settings")
_EVENTS = Grant("sagemaker:ListClusterEvents", "cluster", "what happened to the cluster (continuous: true)")
_NODES = Grant("sagemaker:ListClusterNodes", "cluster", "its nodes and their health")
_TAGS = Grant("sagemaker:ListTags", "cluster", "its tags: whose it is, and what a file says of it")
_STACK = Grant("cloudformation:DescribeStackEvents", "stacks", "why the stack that makes the cluster failed")
_CAUSES = (
    Grant("sagemaker:DescribeClusterEvent", "cluster", "why an event happened: its failure message", optional=True),
    _EVENTS,
    _NODES,
    Grant("sagemaker:ListTags", "cluster", "whose a cluster is, and which stack made one that failed"),
    Grant("logs:DescribeLogStreams", "log", "the lifecycle log of the node that failed", optional=True),
    Grant("logs:GetLogEvents", "log streams", "its last lines", optional=True),
)
_NEW = (_DESCRIBE, *_CAUSES)
_WATCH = (*_NEW, _STACK)
_PASS = (
    Grant("iam:PassRole", "roles", "nodes take their role on; to SageMaker alone"),
    Grant("iam:PassRole", "scaler", "Karpenter takes its role on"),
)
_PREPARE = (
    Grant("iam:GetRole", "made role", "whether the role for the nodes is there, and whose it is"),
    Grant("iam:GetRolePolicy", "made role", "whether its policy is up to date"),
    Grant("s3:ListBucket", "bucket", "whether the bucket is there, and which lifecycle files are"),
    Grant("s3:GetBucketTagging", "made bucket", "whether the bucket was made for this cluster"),
)
_MAKE = (
    Grant("iam:CreateRole", "made role", "a role for the nodes, where the file names none"),
    Grant("iam:TagRole", "made role", "tagged as made for this cluster"),
    Grant("iam:PutRolePolicy", "made role", "what nodes may do"),
    Grant("s3:CreateBucket", "made bucket", "a bucket for lifecycle files, where the file names none"),
    Grant("s3:PutBucketPublicAccessBlock", "made bucket", "closed to the public"),
    Grant("s3:PutBucketPolicy", "made bucket", "closed to what is not encrypted in transit"),
    Grant("s3:PutBucketTagging", "made bucket", "tagged as made for this cluster"),
    Grant("s3:PutObject", "files", "lifecycle files, which nodes run as they start"),
)
_CREATE = (
    Grant("sagemaker:CreateCluster", "cluster", "the cluster"),
    Grant("sagemaker:AddTags", "cluster", "its tags, as it is created"),
    *(
        Grant(f"eks:{verb}", "eks", "SageMaker joins the nodes to the EKS cluster in your name")
        for verb in (
            "AssociateAccessPolicy",
            "CreateAccessEntry",
            "DeleteAccessEntry",
            "DescribeAccessEntry",
            "DescribeCluster",
        )
    ),
)
_LOOKS = (  # plan's checks, which create begins with: each that is denied is said, and stops nothing else
    *(
        Grant(f"ec2:Describe{what}", "everything", why)
        for what, why in (
            ("InstanceTypeOfferings", "zones that have the type"),
            ("InstanceTypes", "addresses that a node takes"),
            ("ManagedPrefixLists", "whether security groups let nodes reach S3"),
            ("RouteTables", "the way to S3"),
            ("SecurityGroups", "open to themselves both ways, as EFA needs"),
            ("Subnets", "their zones and free addresses"),
            ("VpcEndpoints", "the gateway endpoint of S3"),
            ("Vpcs", "room for more subnets"),
        )
    ),
    Grant("eks:DescribeCluster", "eks", "its version, access mode and VPC"),
    Grant("eks:ListAddons", "eks", "device plugins, network policies, the inference operator"),
    Grant("eks:DescribeAddon", "add-ons", "their versions and settings"),
    Grant("eks:DescribeAddonVersions", "eks clusters", "a newer version of an add-on that is too old"),
    Grant("eks:ListClusters", "eks clusters", "a name that is near, where there is no such EKS cluster"),
    Grant("iam:GetRole", "callers", "whether roles are there, and whom they trust; and yours, if you are one"),
    Grant("iam:SimulatePrincipalPolicy", "callers", "what you and the roles may do, before anything is made"),
    Grant("pricing:GetProducts", "everything", "prices of today"),
    Grant("s3:GetObject", "read files", "lifecycle files that are in S3 already: there, and with Unix line ends"),
    Grant("s3:ListBucket", "read bucket", "whether their bucket is there; one that is not says so"),
    Grant("sagemaker:ListClusters", "everything", "names that are taken"),
    Grant("sagemaker:DescribeCluster", "clusters", "what other clusters use of the quotas"),
    Grant("sagemaker:DescribeTrainingPlan", "training plans", "when it begins, where, and for how many"),
    Grant("secretsmanager:DescribeSecret", "secret", "the accounting database's: there, and which key encrypts it"),
    Grant("servicequotas:ListAWSDefaultServiceQuotas", "everything", "quotas of HyperPod"),
    Grant("servicequotas:ListServiceQuotas", "everything", "quotas that were raised"),
)
_READ = tuple(replace(one, optional=True) for one in _LOOKS)
# To the API server of --cluster; what may be done there, an access entry of the EKS cluster says.
_CONNECT = (
    Grant("sagemaker:DescribeCluster", "cluster", "which EKS cluster it is"),
    Grant("eks:DescribeCluster", "eks", "its API server and authority"),
)
_ASK = Grant(
    "sagemaker:InvokeEndpoint", "endpoint", "one real request, where it is an endpoint that was deployed", optional=True
)

COMMANDS: dict[str, tuple[Grant, ...]] = {
    "cluster plan": (*_READ, *_PREPARE, _TAGS),
    "cluster create": (*_READ, *_PREPARE, *_MAKE, *_CREATE, *_PASS, *_NEW),
    "cluster status": (_DESCRIBE, _STACK),
    "cluster watch": _WATCH,
    "cluster update": (
        *_PREPARE,
        *_MAKE,
        Grant("sagemaker:UpdateCluster", "cluster", "the change"),
        Grant("sagemaker:AddTags", "cluster", "tags that the file has, and the cluster has not"),
        *_PASS,
        *_WATCH,
    ),
    "cluster scale": (
        Grant("sagemaker:UpdateCluster", "cluster", "other numbers of nodes"),
        _PASS[0],
        *_WATCH,
    ),
    "cluster events": (_DESCRIBE, _EVENTS, _STACK),
    "cluster nodes": (_DESCRIBE, _NODES, _STACK),
    "cluster repair": (
        _DESCRIBE,
        _NODES,
        Grant("sagemaker:BatchRebootClusterNodes", "cluster", "reboot nodes"),
        Grant("sagemaker:BatchReplaceClusterNodes", "cluster", "replace nodes"),
    ),
    "cluster patch": (
        Grant("sagemaker:UpdateClusterSoftware", "cluster", "newer software of the nodes"),
        *_WATCH,
        *_CONNECT,
    ),
    "cluster delete": (
        Grant("sagemaker:DeleteCluster", "cluster", "the cluster"),
        *_WATCH,
        Grant("s3:GetBucketTagging", "its bucket", "whether there is a bucket that was made for it"),
        Grant("s3:ListBucket", "its bucket", "its lifecycle files"),
        Grant("s3:ListBucket", "bucket", "its lifecycle files, where the file names a bucket"),
        Grant("s3:DeleteObject", "its files", "the lifecycle files of this cluster"),
        Grant("s3:DeleteBucket", "its bucket", "the bucket that was made for it"),
        Grant("iam:GetRole", "its role", "whether there is a role that was made for it"),
        Grant("iam:GetRolePolicy", "its role", "whether it has the policy that was made for it"),
        Grant("iam:DeleteRolePolicy", "its role", "that policy"),
        Grant("iam:DeleteRole", "its role", "the role that was made for it"),
    ),
    "cluster import": (_DESCRIBE, _TAGS, _STACK),
    "deploy": (*_CONNECT, _ASK),
    "status": _CONNECT,
    "logs": _CONNECT,
    "scale": (*_CONNECT, _ASK),
    "undeploy": _CONNECT,
    "invoke": (
        Grant("sagemaker:InvokeEndpoint", "endpoint", "the request"),
        Grant("sagemaker:InvokeEndpointWithResponseStream", "endpoint", "the request with --stream"),
    ),
    "hub publish": (
        Grant("s3:PutObject", "s3 files", "the recipe's template and its parameters"),
        Grant("sagemaker:ImportHubContent", "hub", "the recipe in your private hub"),
        Grant("sagemaker:ImportHubContent", "hub contents", "as its content"),
    ),
    "image mirror": (
        Grant("s3:GetObject", "s3 files", "which files are there already, by size and SHA-256"),
        Grant("s3:ListBucket", "s3 bucket", "else S3 says 403 and not 404 of a file that is not there"),
        Grant("s3:PutObject", "s3 files", "the model's files"),
        Grant("s3:AbortMultipartUpload", "s3 files", "leave no parts of an upload that failed"),
    ),
}

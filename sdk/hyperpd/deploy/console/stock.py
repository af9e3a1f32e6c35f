"""AWS's own stack for HyperPod on EKS, which `hyp` creates clusters with: it makes the EKS cluster that is needed here,
and takes the instance groups that are rendered here.

Sources: its template as sagemaker-hyperpod 3.12.0 has it (hyperpod-cluster-stack-template 1.0.2; the tests hold these
parameters to it), its address there (cluster_management/hp_cluster_stack.py), and what becomes of the settings
(github.com/aws/sagemaker-hyperpod-cluster-setup, b920fcf). Unverified on a live account.
"""

from __future__ import annotations

import json

from hyperpd.deploy.console import groups
from hyperpd.deploy.console.site import LIFECYCLE, Site

FIELD = "InstanceGroupSettings1"  # of 20; each takes a JSON list, and all are put together
_EKS = ("EKSCluster", "HelmChart", "PrivateSubnet", "S3Endpoint", "SecurityGroup", "VPC")
PARTS = (*_EKS, "Fsx", "HyperPodCluster", "LifeCycleScript", "S3Bucket", "SageMakerIAMRole")  # Create…Stack: true


def known(site: Site) -> bool:
    """Whether there is one: for EKS, in the commercial Regions."""
    return site.eks and site.partition == "aws"


def template_url(site: Site) -> str:
    """Where the template is."""
    bucket = f"aws-sagemaker-hyperpod-cluster-setup-{site.options.region}-prod"
    return f"https://{bucket}.s3.amazonaws.com/1/templates/main-stack-eks-based-template.yaml"


def eks_cluster(site: Site) -> dict[str, str]:
    """Parameters that make an EKS cluster with network and add-ons, and no HyperPod cluster."""
    return {"ResourceNamePrefix": site.stack("eks"), "EKSClusterName": site.stack("eks"), **_only(*_EKS)}


def nodes(site: Site) -> dict[str, str | None]:
    """Parameters that make a HyperPod cluster of the pasted groups, and nothing else."""
    options = site.options
    return {
        "ResourceNamePrefix": site.stack("nodes"),
        "HyperPodClusterName": site.stack(),
        "EKSClusterName": (options.eks_cluster_arn or "").rpartition("/")[2],
        "PrivateSubnetIds": options.subnet_id,
        "SageMakerIAMRoleName": groups.role_name(site),
        "S3BucketName": options.bucket,
        "OnCreatePath": site.key(f"{LIFECYCLE}/on_create.sh"),
        **_only("HyperPodCluster"),
    }


def settings(site: Site) -> str:
    """The value of FIELD. Groups name role and scripts, so AWS's stack adds none of its own."""
    return "[" + ",\n ".join(json.dumps(one, separators=(",", ":")) for one in groups.pasted(site)) + "]\n"


def _only(*parts: str) -> dict[str, str]:
    return {f"Create{part}Stack": str(part in parts).lower() for part in PARTS}

"""What goes wrong with clusters, and where its reason is shown."""

from __future__ import annotations

from collections.abc import Iterator

from hyperpd.deploy.console import image
from hyperpd.deploy.console.site import UNSEEN, Site


def section(site: Site) -> Iterator[str]:
    """Symptom → cause, as AWS documents them or users report them."""
    name = site.stack()
    yield "## When a stack fails"
    yield ""
    yield "CloudFormation, the stack, Events: the first row that says FAILED. For nodes: CloudWatch, Log groups,"
    yield f"`/aws/sagemaker/Clusters/{name}/…`, stream `LifecycleConfig/<group>/<node>`; the last line says"
    yield f"why. {UNSEEN}"
    yield ""
    yield "| what it says | what it is |"
    yield "|---|---|"
    for symptom, cause in _ROWS.items():
        yield f"| {symptom} | {cause} |"
    if image.made(site):
        for symptom, cause in _IMAGE_ROWS.items():
            yield f"| {symptom} | {cause} |"
    if site.eks:
        for symptom, cause in _EKS_ROWS.items():
            yield f"| {symptom} | {cause} |"
    yield ""


_ROWS = {
    "EFA health check did not run": "the security group's rules; the stack's are right, so look at one added by"
    " hand. Now and then it passes: try again",
    "insufficient capacity, no subnet in the capacity's zone": "the subnet is in another zone than the capacity or the"
    " training plan",
    "lifecycle script failed or timed out": "files missing in the bucket, or no way to S3: `RouteTableId` of a subnet"
    " without an S3 endpoint, or a wrong `S3PrefixListId`",
    "ResourceLimitExceeded": 'the quota "… for cluster usage" of step 0',
    "InService, and no nodes": "look at the cluster's events: it says so early",
}
_IMAGE_ROWS = {
    "the build: toomanyrequests": "Docker Hub's limit for pulls without an account, from an address that others share:"
    " start the build again later",
    "the build: /tmp/efa.tar.gz: FAILED": "`EfaSha256` is of another file than the one that was downloaded",
    "the build: source.json: FAILED": "the uploaded file is of another rendering than the stack: upload again, or"
    " update the stack",
    "the build: tag … already exists": "a tag is written once: render with another, and update the stacks",
    "`Repository` already exists": "it stays when its stack is deleted: go on with the image that is in it, or"
    " delete it under ECR first",
    "the build: error: … is not of …": "`--set image=` names another account or Region than the stack is in",
}
_EKS_ROWS = {
    "the EKS cluster is refused": "authentication mode, Kubernetes version (1.28 to 1.34) or VPC CNI older than 1.18.3",
    "`Objects`: the cluster does not know …": "a controller is missing: LeaderWorkerSet where a worker spans nodes, as"
    " `leader_worker_set=true` said that it is there",
    "`Objects`: Namespace … is there, and not made by this stack": "another stack's, or somebody's, and left as it is;"
    " render with another `--set namespace=`, or delete it (that of a stack just deleted takes a while to go)",
    "`Objects`: 401, or 403 with `cannot`": "the access entry `ApplyEntry` did not hold within two minutes: delete the"
    " stack, create it again",
    "`Objects`: 403 with `denied` or `violates`": "a rule of the EKS cluster for what may be made (an admission"
    " webhook, Pod Security): who looks after the cluster knows it",
    "`Objects`: timed out": "the API server's endpoint is private; the function reaches public ones only",
}

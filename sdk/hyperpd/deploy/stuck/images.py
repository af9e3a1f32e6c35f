"""Why an image does not come."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hyperpd.deploy.stuck.cause import Sign, read

REASONS = (
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
)
_ECR = re.compile(r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(\.cn)?/(?P<rest>[^:@]+)")
# Refusals before "not found": registries tell a stranger of a private repository that it may not exist.
SIGNS = (
    Sign(
        r"toomanyrequests|429 Too Many|rate limit",
        "the registry's rate limit is reached",
        "copy it into your own registry and deploy that: hyperpd image mirror RECIPE; many nodes pull at once",
    ),
    Sign(
        r"no match for platform|no matching manifest|does not match the specified platform",
        "the image has nothing for the node's processor (hyperpd's machines are amd64)",
        "build or mirror it for linux/amd64: hyperpd image build, hyperpd image mirror RECIPE",
    ),
    Sign(
        r"401 Unauthorized|403 Forbidden|no basic auth credentials|pull access denied|authorization failed"
        r"|not authorized|denied: ",
        "the registry does not let the node pull it",
        "{access}",
    ),
    Sign(
        r"code = NotFound|not found|manifest unknown|name unknown",
        "there is no such image or tag",
        "{look}; then deploy with --set image=REPOSITORY:TAG",
    ),
    Sign(
        r"no space left on device|DiskPressure",
        "the node's disk is full",
        "HyperPod's root volume has 100 GB: a larger InstanceStorageConfigs volume, or kubectl debug node/… and"
        " crictl rmi --prune",
    ),
    Sign(
        r"x509|certificate",
        "the registry's certificate is not trusted by the node",
        "a registry with a public certificate (ECR), or its authority in the lifecycle scripts",
    ),
    Sign(
        r"no such host|i/o timeout|dial tcp|TLS handshake timeout|connection refused|context deadline exceeded",
        "the node does not reach the registry",
        "the subnets need NAT, or endpoints for ecr.api, ecr.dkr and S3 (gateway); without a way out: hyperpd image"
        " mirror RECIPE",
    ),
    Sign(
        r"InvalidImageName|invalid reference format|couldn't parse image",
        "its name is no image's name",
        "correct the recipe's image, or --set image=HOST/REPOSITORY:TAG",
    ),
    Sign(
        r"ErrImageNeverPull|with pull policy of Never",
        "it may not be pulled (imagePullPolicy Never) and is not on the node",
        "another imagePullPolicy, or the image on every node",
    ),
)


def why(image: str, messages: Sequence[str]) -> tuple[str, str]:
    """(what, fix) for an image, by what kubelet and the registry say."""
    sign = read([Sign(one.words, one.what, _fixed(one.fix, image)) for one in SIGNS], "\n".join(messages))
    if sign:
        return f"image {image}: {sign.what}", sign.fix
    return f"image {image} cannot be pulled", f"pull it from a machine of the cluster to see more; {_look(image)}"


def _fixed(fix: str, image: str) -> str:
    return fix.replace("{access}", _access(image)).replace("{look}", _look(image))


def _access(image: str) -> str:
    if found := _ECR.match(image):
        return (
            "the instance group's execution role needs ecr:GetAuthorizationToken, BatchGetImage and"
            f" GetDownloadUrlForLayer; an image of account {found['account']} also lets yours pull: aws ecr"
            f" get-repository-policy --region {found['region']} --registry-id {found['account']} --repository-name"
            f" {found['rest']}"
        )
    return "copy it into your ECR, which nodes may read: hyperpd image mirror RECIPE; or a public image"


def _look(image: str) -> str:
    if found := _ECR.match(image):
        return (
            f"what is there: aws ecr describe-images --region {found['region']} --registry-id {found['account']}"
            f" --repository-name {found['rest']}"
        )
    return f"what is there: skopeo list-tags docker://{image.partition('@')[0].rpartition(':')[0] or image}"

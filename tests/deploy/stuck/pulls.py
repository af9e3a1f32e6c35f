"""Images that do not come. Messages as kubelet and containerd write them."""

from __future__ import annotations

from hyperpd.deploy.stuck import Seen, Stage
from tests.deploy.stuck.case import Case
from tests.deploy.stuck.parts import (
    IMAGE,
    event,
    starting,
    waiting,
)


def _pull(name: str, what: str, fix: str, said: str, reason: str = "ImagePullBackOff") -> Case:
    """Image pull: kubelet's state says little, its event has the registry's words."""
    one = starting(waiting(reason, f'Back-off pulling image "{IMAGE}"'))
    failed = event(one, "Failed", f'Failed to pull image "{IMAGE}": {said}')
    return Case(name, Stage.UNSTARTED, what, fix, Seen(pods=[one], events=[failed]))


_RESOLVE = f'failed to pull and unpack image "{IMAGE}": failed to resolve reference "{IMAGE}": '
PULLS = (
    _pull(
        "no such tag",
        "there is no such image or tag",
        "describe-images --region us-east-2",
        f"rpc error: code = NotFound desc = {_RESOLVE}{IMAGE}: not found",
    ),
    _pull(
        "no right to ECR",
        "does not let the node pull",
        "ecr:GetAuthorizationToken",
        f"rpc error: code = Unknown desc = {_RESOLVE}pulling from host 123456789012.dkr.ecr.us-east-2.amazonaws.com"
        " failed with status code [manifests 0.1.0]: 403 Forbidden",
    ),
    _pull(
        "a private repository elsewhere",
        "does not let the node pull",
        "get-repository-policy",
        f"{_RESOLVE}pull access denied, repository does not exist or may require authorization",
    ),
    _pull(
        "rate limit",
        "rate limit is reached",
        "hyperpd image mirror",
        "rpc error: code = Unknown desc = httpReadSeeker: failed open: unexpected status code 429 Too Many Requests -"
        " Server message: toomanyrequests: You have reached your pull rate limit",
    ),
    _pull(
        "another processor",
        "nothing for the node's processor",
        "linux/amd64",
        f'rpc error: code = NotFound desc = failed to pull and unpack image "{IMAGE}": no match for platform in'
        " manifest: not found",
    ),
    _pull(
        "disk full",
        "disk is full",
        "100 GB",
        "write /var/lib/containerd/io.containerd.content.v1.content/ingest/8d/data: no space left on device",
    ),
    _pull(
        "no way to the registry",
        "does not reach the registry",
        "ecr.api, ecr.dkr",
        f'{_RESOLVE}failed to do request: Head "https://123456789012.dkr.ecr.us-east-2.amazonaws.com/v2/": dial tcp'
        " 10.0.3.4:443: i/o timeout",
    ),
    _pull(
        "own certificate",
        "certificate is not trusted",
        "lifecycle scripts",
        f"{_RESOLVE}failed to do request: tls: failed to verify certificate: x509: certificate signed by unknown"
        " authority",
    ),
    _pull("words nobody knows", "cannot be pulled", "describe-images", "rpc error: unexpected end of stream"),
    Case(
        "no image's name",
        Stage.UNSTARTED,
        "no image's name",
        "--set image=",
        Seen(
            pods=[
                starting(
                    waiting(
                        "InvalidImageName",
                        'Failed to apply default image tag "Hyperpd:": couldn\'t parse'
                        ' image name "Hyperpd:": invalid reference format',
                    )
                )
            ]
        ),
    ),
    Case(
        "never pulled",
        Stage.UNSTARTED,
        "may not be pulled",
        "imagePullPolicy",
        Seen(
            pods=[
                starting(
                    waiting("ErrImageNeverPull", f'Container image "{IMAGE}" is not present with pull policy of Never')
                )
            ]
        ),
    ),
)

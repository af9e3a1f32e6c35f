"""Objects that the API does not take: (name, kind, code and words of the refusal, what is told, what is proposed)."""

from __future__ import annotations

from hyperpd.deploy.apply import NOT_SERVED

REFUSALS = (
    (
        "CRD",
        "LeaderWorkerSet",
        NOT_SERVED,
        "the server could not find the requested resource",
        "does not serve LeaderWorkerSet",
        "helm install lws",
    ),
    (
        "the operator's webhook",
        "InferenceEndpointConfig",
        "Forbidden",
        "admission webhook"
        ' "vinferenceendpointconfig.sagemaker.amazonaws.com" denied the request: instanceType ml.p5en.48xlarge'
        " is not there",
        "the inference operator refuses it: instanceType ml.p5en",
        "--target inference_operator",
    ),
    (
        "no rights",
        "Deployment",
        "Forbidden",
        'deployments.apps "prefill" is forbidden: User "arn:aws:iam::1:user/me" cannot'
        ' patch resource "deployments" in API group "apps" in the namespace "hyperpd-engines"',
        "no right",
        "access entry",
    ),
    (
        "no namespace",
        "Deployment",
        "NotFound",
        'namespaces "hyperpd-engines" not found',
        "no namespace hyperpd-engines",
        "deploy again",
    ),
    (
        "quota of objects",
        "Deployment",
        "Forbidden",
        'deployments.apps "prefill" is forbidden: exceeded quota: objects,'
        " requested: count/deployments.apps=1, used: count/deployments.apps=2, limited: count/deployments.apps=2",
        "ResourceQuota objects is used up",
        "fewer replicas",
    ),
)

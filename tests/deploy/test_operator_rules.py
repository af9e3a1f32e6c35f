"""Every rule of the operator that is documented, each with an object that breaks it and no other."""

from __future__ import annotations

import copy

import pytest

from hyperpd.deploy.inference_operator import rules
from tests.deploy.operator_rendered import AMP, FRONT, TOKEN, cases, endpoint

PAIR = ("llama-3.3-70b-p5en-4p2d", (AMP, TOKEN))
CPU = ("tiny-cpu-1p1d", FRONT)

HUB = ("modelSourceConfig", "huggingFaceModel")
ROLE = ("pdSpec", "prefillSpec")
AMP_AT = ("pdSpec", "autoScalingSpec", "decodingAutoScaling", "prometheusTrigger", "serverAddress")
# rule → (rendering, path in spec, the value that breaks it; None takes the field away)
BROKEN = {
    "required_fields": (PAIR, ("worker", "image"), None),
    "names_of_sagemaker": (PAIR, ("endpointName",), "a" * 64),
    "names_that_are_derived": (PAIR, ("metadata", "name"), "a" * 40),
    "one_placement": (PAIR, ("instanceTypes",), ["ml.p5en.48xlarge"]),
    "instance_types_begin_with_ml": (CPU, ("instanceType",), "m5.2xlarge"),
    "source_has_its_block": (PAIR, ("modelSourceConfig", "modelSourceType"), "s3"),
    "hub_model_is_named": (PAIR, (*HUB, "modelId"), "gpt2"),
    "token_secret_is_named": (PAIR, (*HUB, "tokenSecretRef"), {"key": "token"}),
    "volume_has_the_mounts_name": (CPU, ("worker", "modelVolumeMount", "name"), "weights"),
    "volume_has_no_location": (CPU, ("modelSourceConfig", "modelLocation"), "a"),
    "volumes_are_not_reserved": (CPU, ("kubernetes", "volumes", 1), {"name": "shm", "emptyDir": {}}),
    "service_account_is_default": (CPU, ("kubernetes", "serviceAccountName"), "engines"),
    "pair_is_on_machines_with_rdma": (PAIR, ("instanceType",), "ml.g6e.8xlarge"),
    "pair_has_both_roles": (PAIR, ("pdSpec", "decodingSpec"), None),
    "pair_asks_for_gpus": (PAIR, (*ROLE, "resources", "requests"), {"cpu": "1"}),
    "pair_has_replicas": (PAIR, (*ROLE, "replicas"), 0),
    "threshold_is_no_less_than_zero": (PAIR, ("pdSpec", "routingThreshold"), -1),
    "prometheus_is_amp": (PAIR, AMP_AT, "http://prometheus.monitoring:9090"),
    "second_cache_has_a_backend": (PAIR, ("kvCacheSpec", "l2CacheSpec"), {"l2CacheBackend": "disk"}),
    "redis_has_a_url": (PAIR, ("kvCacheSpec", "l2CacheSpec"), {"l2CacheBackend": "Redis"}),
    "second_caches_url_is_the_operators": (PAIR, ("worker", "environmentVariables", 0, "name"), "LMCACHE_REMOTE_URL"),
    "variable_has_one_value": (PAIR, ("worker", "environmentVariables", 0, "valueFrom"), {"fieldRef": {}}),
    "overflow_is_an_error": (PAIR, ("worker", "requestLimits"), {"overflowStatusCode": 200}),
    "invocation_port_speaks_http": (PAIR, ("worker", "modelInvocationPort", "name"), "api"),
    "metrics_port_is_unprivileged": (PAIR, ("metrics", "modelMetrics", "port"), 80),
    "health_path_is_absolute": (PAIR, ("loadBalancer", "healthCheckPath"), "ping"),
    "dns_needs_a_certificate": (PAIR, ("dnsConfig",), {"hostedZoneId": "Z1"}),
    "captured_types_are_media_types": (
        PAIR,
        ("dataCapture",),
        {"modelPod": {"captureContentTypeHeader": {"csvContentTypes": ["text/csv", "csv"]}}},
    ),
}
MORE = [
    ("names_of_sagemaker", PAIR, ("modelName",), "a.b"),
    ("hub_model_is_named", PAIR, (*HUB, "commitSHA"), "main"),
    ("required_fields", PAIR, ("modelName",), None),
    ("instance_types_begin_with_ml", CPU, ("instanceTypes",), ["m5.2xlarge"]),
    ("one_placement", CPU, ("nodeAffinity",), {"preferredDuringSchedulingIgnoredDuringExecution": []}),
    ("pair_is_on_machines_with_rdma", PAIR, ("instanceTypes",), ["ml.p5.4xlarge"]),
    ("invocation_port_speaks_http", PAIR, ("worker", "modelInvocationPort", "containerPort"), 0),
    ("volume_has_the_mounts_name", CPU, ("kubernetes",), None),
]


def _broken(rendering, path, value):
    body = copy.deepcopy(endpoint(*rendering))
    if path == ("kvCacheSpec", "l2CacheSpec"):
        body["spec"]["kvCacheSpec"]["enableL2Cache"] = True
    if value == "LMCACHE_REMOTE_URL":
        body["spec"]["kvCacheSpec"]["enableL2Cache"] = True
    block = body if path[0] == "metadata" else body["spec"]
    for key in path[:-1]:
        block = block[key]
    if value is None:
        del block[path[-1]]
    elif isinstance(block, list) and path[-1] == len(block):
        block.append(value)
    else:
        block[path[-1]] = value
    return body


def test_every_rule_has_a_name_and_a_case():
    assert [rule.__name__ for rule in rules.RULES] == list(BROKEN)


@pytest.mark.parametrize(("rule", "case"), [*BROKEN.items(), *((one[0], one[1:]) for one in MORE)])
def test_a_broken_rule_is_named(rule, case):
    broken = {problem.rpartition("(rule ")[2].rstrip(")") for problem in rules.problems(_broken(*case))}
    # Two rules are about machines of pdSpec, and two about what placement is given: a break may meet both.
    also = {"one_placement"} if case[1] in (("instanceTypes",), ("nodeAffinity",)) else set()
    also |= {"pair_is_on_machines_with_rdma"} if case[0] is PAIR and case[1] == ("instanceTypes",) else set()
    assert rule in broken
    assert broken - {rule} <= also


@pytest.mark.parametrize(("name", "given"), cases())
def test_what_is_rendered_breaks_none(name, given):
    assert rules.problems(endpoint(name, given)) == []

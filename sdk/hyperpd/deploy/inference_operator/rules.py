"""problems(object) → what the operator refuses in an InferenceEndpointConfig, beyond shapes: its rules, each by name.

The definition has no rules of its own; the operator's webhook and controller have. Sources: descriptions in the
definition (chart 2.2.2), and AWS's pages on DPD, on local NVMe volumes and on KV caching (read 2026-11). A rule that
is not documented is not here, nor one about changes to an object that is there (routing's `enabled`, a worker's
variables): nothing here makes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

Spec = Mapping[str, Any]

NAME_LENGTH = 63
NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
MEDIA_TYPE = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*/[a-zA-Z0-9](-*[a-zA-Z0-9.])*")
AMP = re.compile(r"https://aps-workspaces\.[a-zA-Z0-9-]+(\.[a-zA-Z0-9-]+)*\.amazonaws\.com/workspaces/ws-[a-zA-Z0-9-]+")
# AWS's page on DPD: "Other instance types are not supported".
PAIR_INSTANCE_TYPES = (
    "ml.p5.48xlarge",
    "ml.p5e.48xlarge",
    "ml.p5en.48xlarge",
    "ml.p6-b200.48xlarge",
    "ml.p6-b300.48xlarge",
)
# AWS's page on NVMe: the operator makes these itself.
RESERVED_VOLUMES = (
    "shm",
    "model-weights-copy",
    "parallel-copy-configmap",
    "lmcache-config",
    "gated-model-downloader-configmap",
)
_SOURCES = {"s3": "s3Storage", "fsx": "fsxStorage", "huggingface": "huggingFaceModel"}
_PLACEMENTS = ("instanceType", "instanceTypes", "nodeAffinity")
_GPU = "nvidia.com/"  # also a MIG slice, nvidia.com/mig-1g.10gb
_ROLES = ("prefillSpec", "decodingSpec")


def problems(body: Mapping[str, Any]) -> list[str]:
    """Every rule that `body` breaks: "path: what (rule)"."""
    return [f"{problem} (rule {rule.__name__})" for rule in RULES for problem in rule(body)]


def required_fields(body: Mapping[str, Any]) -> Iterator[str]:
    spec = body["spec"]
    yield from (f"spec.{key}: missing" for key in ("modelName", "modelSourceConfig", "worker") if not spec.get(key))
    worker = spec.get("worker", {})
    for key in ("image", "modelInvocationPort", "modelVolumeMount", "resources"):
        if not worker.get(key):
            yield f"spec.worker.{key}: missing"


def names_of_sagemaker(body: Mapping[str, Any]) -> Iterator[str]:
    for key in ("modelName", "endpointName"):
        name = body["spec"].get(key) or ""
        if name and (len(name) > NAME_LENGTH or not NAME.fullmatch(name)):
            yield f"spec.{key}: {name}; at most {NAME_LENGTH} letters, digits and single '-' inside"


def names_that_are_derived(body: Mapping[str, Any]) -> Iterator[str]:
    """The router's Service is <name>-<namespace>-routing-service; containers are prefill-<name> and decode-<name>."""
    if "pdSpec" not in body["spec"]:
        return
    name, namespace = body["metadata"]["name"], body["metadata"].get("namespace", "default")
    for made in (f"{name}-{namespace}-routing-service", f"prefill-{name}"):
        if len(made) > 63:
            yield f"metadata.name: the operator's {made} is longer than 63; give a shorter name"


def one_placement(body: Mapping[str, Any]) -> Iterator[str]:
    given = [key for key in _PLACEMENTS if body["spec"].get(key)]
    if len(given) > 1:
        yield f"spec: {' and '.join(given)} exclude each other"


def instance_types_begin_with_ml(body: Mapping[str, Any]) -> Iterator[str]:
    spec = body["spec"]
    for name in [*([spec["instanceType"]] if spec.get("instanceType") else []), *spec.get("instanceTypes", ())]:
        if not str(name).startswith("ml."):
            yield f"spec.instanceType: {name}; it begins with ml."


def source_has_its_block(body: Mapping[str, Any]) -> Iterator[str]:
    source = body["spec"]["modelSourceConfig"]
    needed = _SOURCES.get(source["modelSourceType"])
    if needed and not source.get(needed):
        yield f"spec.modelSourceConfig.{needed}: missing; modelSourceType is {source['modelSourceType']}"


def hub_model_is_named(body: Mapping[str, Any]) -> Iterator[str]:
    hub = body["spec"]["modelSourceConfig"].get("huggingFaceModel") or {}
    if hub and not re.fullmatch(r"[a-zA-Z0-9_.-]+/[a-zA-Z0-9_.-]+", hub.get("modelId", "")):
        yield f"spec.modelSourceConfig.huggingFaceModel.modelId: {hub.get('modelId')}; it is like org/model"
    if hub.get("commitSHA") and not re.fullmatch(r"[0-9a-f]{40}", hub["commitSHA"]):
        yield f"spec.modelSourceConfig.huggingFaceModel.commitSHA: {hub['commitSHA']}; a commit has 40 digits"


def token_secret_is_named(body: Mapping[str, Any]) -> Iterator[str]:
    secret = (body["spec"]["modelSourceConfig"].get("huggingFaceModel") or {}).get("tokenSecretRef") or {}
    if secret and not secret.get("name"):
        yield "spec.modelSourceConfig.huggingFaceModel.tokenSecretRef.name: missing"


def volume_has_the_mounts_name(body: Mapping[str, Any]) -> Iterator[str]:
    """KubernetesVolumeValidationFailed."""
    spec = body["spec"]
    if spec["modelSourceConfig"]["modelSourceType"] != "kubernetesVolume":
        return
    wanted = spec["worker"]["modelVolumeMount"]["name"]
    if wanted not in [volume["name"] for volume in spec.get("kubernetes", {}).get("volumes", ())]:
        yield f"spec.kubernetes.volumes: none is called {wanted}, as worker.modelVolumeMount is"


def volume_has_no_location(body: Mapping[str, Any]) -> Iterator[str]:
    source = body["spec"]["modelSourceConfig"]
    if source["modelSourceType"] == "kubernetesVolume" and source.get("modelLocation"):
        yield "spec.modelSourceConfig.modelLocation: not with kubernetesVolume"


def volumes_are_not_reserved(body: Mapping[str, Any]) -> Iterator[str]:
    """KubernetesVolumeValidationFailed."""
    for volume in body["spec"].get("kubernetes", {}).get("volumes", ()):
        if volume["name"] in RESERVED_VOLUMES:
            yield f"spec.kubernetes.volumes: {volume['name']} is the operator's own"


def service_account_is_default(body: Mapping[str, Any]) -> Iterator[str]:
    """Off unless the add-on has enableCustomServiceAccounts, and the account a label; we never ask for one."""
    if body["spec"].get("kubernetes", {}).get("serviceAccountName"):
        yield "spec.kubernetes.serviceAccountName: refused unless the cluster's administrator has enabled it"


def pair_is_on_machines_with_rdma(body: Mapping[str, Any]) -> Iterator[str]:
    spec = body["spec"]
    if "pdSpec" not in spec:
        return
    for name in [*([spec["instanceType"]] if spec.get("instanceType") else []), *spec.get("instanceTypes", ())]:
        if name not in PAIR_INSTANCE_TYPES:
            yield f"spec.instanceType: {name}; pdSpec takes {', '.join(PAIR_INSTANCE_TYPES)}"


def pair_has_both_roles(body: Mapping[str, Any]) -> Iterator[str]:
    if "pdSpec" in body["spec"]:
        yield from (f"spec.pdSpec.{role}: missing" for role in _ROLES if role not in body["spec"]["pdSpec"])


def pair_asks_for_gpus(body: Mapping[str, Any]) -> Iterator[str]:
    for role, block in _pair(body):
        requests = block.get("resources", {}).get("requests", {})
        if not any(key.startswith(_GPU) and int(amount) > 0 for key, amount in requests.items()):
            yield f"spec.pdSpec.{role}.resources.requests: no GPUs"


def pair_has_replicas(body: Mapping[str, Any]) -> Iterator[str]:
    for role, block in _pair(body):
        if block.get("replicas", 1) < 1:
            yield f"spec.pdSpec.{role}.replicas: {block['replicas']}; at least 1"


def threshold_is_no_less_than_zero(body: Mapping[str, Any]) -> Iterator[str]:
    threshold = body["spec"].get("pdSpec", {}).get("routingThreshold", 0)
    if threshold < 0:
        yield f"spec.pdSpec.routingThreshold: {threshold}; 0 is always"


def prometheus_is_amp(body: Mapping[str, Any]) -> Iterator[str]:
    for path, block in _scaling(body["spec"]):
        address = block.get("prometheusTrigger", {}).get("serverAddress", "")
        if address and not AMP.fullmatch(address):
            yield f"{path}.prometheusTrigger.serverAddress: {address}; an AMP workspace's URL"


def second_cache_has_a_backend(body: Mapping[str, Any]) -> Iterator[str]:
    cache = body["spec"].get("kvCacheSpec", {})
    backend = cache.get("l2CacheSpec", {}).get("l2CacheBackend", "")
    if "l2CacheSpec" in cache and backend.lower() not in ("redis", "tieredstorage"):
        yield f"spec.kvCacheSpec.l2CacheSpec.l2CacheBackend: {backend or 'missing'}; redis or tieredstorage"


def redis_has_a_url(body: Mapping[str, Any]) -> Iterator[str]:
    cache = body["spec"].get("kvCacheSpec", {}).get("l2CacheSpec", {})
    if cache.get("l2CacheBackend", "").lower() == "redis" and not cache.get("l2CacheLocalUrl"):
        yield "spec.kvCacheSpec.l2CacheSpec.l2CacheLocalUrl: missing; l2CacheBackend is redis"


def second_caches_url_is_the_operators(body: Mapping[str, Any]) -> Iterator[str]:
    """With enableL2Cache the operator adds LMCACHE_REMOTE_URL; given twice, one of them wins by chance."""
    spec = body["spec"]
    names = [variable["name"] for variable in spec["worker"].get("environmentVariables", ())]
    if spec.get("kvCacheSpec", {}).get("enableL2Cache") and "LMCACHE_REMOTE_URL" in names:
        yield "spec.worker.environmentVariables: LMCACHE_REMOTE_URL is the operator's own with enableL2Cache"


def variable_has_one_value(body: Mapping[str, Any]) -> Iterator[str]:
    for variable in body["spec"]["worker"].get("environmentVariables", ()):
        if variable.get("value") and variable.get("valueFrom"):
            yield f"spec.worker.environmentVariables: {variable['name']} has value and valueFrom"


def overflow_is_an_error(body: Mapping[str, Any]) -> Iterator[str]:
    status = body["spec"]["worker"].get("requestLimits", {}).get("overflowStatusCode", 429)
    if not 400 <= status <= 599:
        yield f"spec.worker.requestLimits.overflowStatusCode: {status}; 400 to 599"


def invocation_port_speaks_http(body: Mapping[str, Any]) -> Iterator[str]:
    port = body["spec"]["worker"]["modelInvocationPort"]
    if not 1 <= port["containerPort"] <= 65535 or port.get("name", "http") not in ("http", "grpc"):
        yield f"spec.worker.modelInvocationPort: {port}; 1 to 65535, called http or grpc"


def metrics_port_is_unprivileged(body: Mapping[str, Any]) -> Iterator[str]:
    port = body["spec"].get("metrics", {}).get("modelMetrics", {}).get("port", 8080)
    if not 1024 <= port <= 65535:
        yield f"spec.metrics.modelMetrics.port: {port}; 1024 to 65535"


def health_path_is_absolute(body: Mapping[str, Any]) -> Iterator[str]:
    path = body["spec"].get("loadBalancer", {}).get("healthCheckPath", "/ping")
    if not path.startswith("/"):
        yield f"spec.loadBalancer.healthCheckPath: {path}; it begins with /"


def dns_needs_a_certificate(body: Mapping[str, Any]) -> Iterator[str]:
    spec = body["spec"]
    if spec.get("dnsConfig") and not spec.get("tlsConfig", {}).get("customCertificateConfig"):
        yield "spec.dnsConfig: needs tlsConfig.customCertificateConfig"


def captured_types_are_media_types(body: Mapping[str, Any]) -> Iterator[str]:
    for tier in ("sagemakerEndpoint", "modelPod"):
        header = body["spec"].get("dataCapture", {}).get(tier, {}).get("captureContentTypeHeader", {})
        for key, types in header.items():
            for wrong in (one for one in types if len(one) > 256 or not MEDIA_TYPE.fullmatch(one)):
                yield f"spec.dataCapture.{tier}.captureContentTypeHeader.{key}: {wrong}; as in text/csv"


def _pair(body: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    pair = body["spec"].get("pdSpec", {})
    yield from ((role, pair[role]) for role in _ROLES if role in pair)


def _scaling(spec: Spec) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if block := spec.get("autoScalingSpec"):
        yield "spec.autoScalingSpec", block
    for key, block in spec.get("pdSpec", {}).get("autoScalingSpec", {}).items():
        yield f"spec.pdSpec.autoScalingSpec.{key}", block


RULES: tuple[Any, ...] = (
    required_fields,
    names_of_sagemaker,
    names_that_are_derived,
    one_placement,
    instance_types_begin_with_ml,
    source_has_its_block,
    hub_model_is_named,
    token_secret_is_named,
    volume_has_the_mounts_name,
    volume_has_no_location,
    volumes_are_not_reserved,
    service_account_is_default,
    pair_is_on_machines_with_rdma,
    pair_has_both_roles,
    pair_asks_for_gpus,
    pair_has_replicas,
    threshold_is_no_less_than_zero,
    prometheus_is_amp,
    second_cache_has_a_backend,
    redis_has_a_url,
    second_caches_url_is_the_operators,
    variable_has_one_value,
    overflow_is_an_error,
    invocation_port_speaks_http,
    metrics_port_is_unprivileged,
    health_path_is_absolute,
    dns_needs_a_certificate,
    captured_types_are_media_types,
)

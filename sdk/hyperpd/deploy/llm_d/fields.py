"""What becomes of every field of a recipe: workers as for kubernetes; what a gateway does, llm-d does its own way."""

from __future__ import annotations

from hyperpd.deploy import kubernetes
from hyperpd.deploy.target import Field

_OURS = "hyperpd's own gateway, where the option front keeps it"
FIELDS = {
    **kubernetes.FIELDS,
    "kv_transfer.fabric": Field(
        "expressed", "efa: devices, huge pages, roles on different machines; local is refused: one pod for all"
    ),
    "gateway.policy": Field(
        "not expressed", "llm-d chooses by cached prefix and load: the profiles of its own P/D guide"
    ),
    "gateway.replicas": Field("expressed", f"{_OURS}; llm-d has one active endpoint picker"),
    "gateway.decider": Field("expressed", "The nearest threshold that llm-d can set, printed; see threshold_tokens"),
    "gateway.threshold_tokens": Field(
        "expressed",
        "0: always-disagg-pd-decider; else nonCachedTokens of prefix-based-pd-decider, the nearest there",
    ),
    "gateway.prefix_view": Field(
        "not expressed", "llm-d knows prefixes exactly where the workers publish KV events, and guesses them else"
    ),
    "gateway.calibration": Field("not expressed", "llm-d predicts nothing from it"),
    "gateway.auth": Field("expressed", "none; keys is refused: llm-d asks for no key, the Gateway would have to"),
    "gateway.steering": Field(
        "not expressed", "llm-d reads such headers of clients itself, and passes fields on: drop them in the Gateway"
    ),
    "gateway.isolate_prefix_cache": Field("expressed", "Only false: it goes with gateway.auth: keys"),
    "gateway.limits": Field("not expressed", f"llm-d has no such limit; {_OURS}"),
    "gateway.limits.body_mib": Field("expressed", "NGINX: maxSize of the ClientSettingsPolicy"),
    "gateway.limits.concurrent_requests": Field("not expressed", "llm-d knows no such limit; it queues by saturation"),
    "slo": Field("expressed", "KEDA's triggers: itl_ms; ttft_ms is measured by hyperpd's gateway alone"),
}

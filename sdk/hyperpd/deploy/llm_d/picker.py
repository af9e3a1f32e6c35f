"""The endpoint picker's own configuration: profiles as llm-d's P/D guide has them, the recipe's decider."""

from __future__ import annotations

from typing import Any

from hyperpd.deploy.kubernetes.fleet import PORTS
from hyperpd.deploy.llm_d import events
from hyperpd.deploy.llm_d.options import Options
from hyperpd.recipe import Recipe

Plugin = dict[str, Any]
API_VERSION = "llm-d.ai/v1alpha1"  # of llm-d-router v0.10.0; later ones also read llm-d.ai/v1
_ESTIMATED, _EXACT = "approx-prefix-cache-producer", "precise-prefix-cache-producer"
_NOTIFIED = "endpoint-notification-source"
_LEAST_BLOCK_TOKENS = 64  # smaller ones are taken for this
_AFFINITY = "prefix-cache-affinity-filter"


def configuration(recipe: Recipe, options: Options) -> dict[str, Any]:
    """The EndpointPickerConfig."""
    gates = {"featureGates": ["flowControl"]} if options.priorities else {}
    body: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "kind": "EndpointPickerConfig",
        **gates,
        "plugins": [*_prefixes(recipe), *_choosing(recipe, options)],
        "schedulingProfiles": _profiles(recipe),
    }
    if events.published(recipe):
        heard = {"pluginRef": _NOTIFIED, "extractors": [{"pluginRef": _EXACT}]}
        body["dataLayer"] = {"sources": [heard]}  # it adds the source of metrics itself
    return body


def loss(recipe: Recipe) -> str:
    """How llm-d's decider differs from the recipe's; empty where it does not."""
    decider, tokens = recipe.gateway.decider, recipe.remote_from_tokens()
    if recipe.aggregated or decider == "always":
        return ""
    nearest = "prefill is always remote (threshold_tokens would set from how many tokens on)"
    if tokens:
        nearest = (
            f"prefill is remote from {tokens} tokens on that decode has not cached, by llm-d's estimate of four bytes"
            " a token"
        )
    return f"gateway.decider: {decider}; the nearest llm-d can set: {nearest}"


def _prefixes(recipe: Recipe) -> list[Plugin]:
    """What says which worker holds how much of a prompt. The decider reads the estimate, whatever else there is."""
    estimate = {
        "autoTune": False,  # it may leave the block size at 0, and nothing would ever match
        "blockSizeTokens": max(_LEAST_BLOCK_TOKENS, recipe.kv_transfer.block_size_tokens),
        "maxPrefixTokensToMatch": recipe.model.max_len_tokens,
    }
    found: list[Plugin] = [{"type": _ESTIMATED, "parameters": estimate}]
    if events.published(recipe):
        exact = {
            "tokenProcessorConfig": {"blockSizeTokens": recipe.kv_transfer.block_size_tokens},
            "kvEventsConfig": {
                "topicFilter": events.TOPIC,
                "discoverPods": True,
                "podDiscoveryConfig": {"socketPort": PORTS.kv_events},
            },
        }
        found += [
            {"type": "token-producer", "parameters": {"modelName": recipe.model.huggingface}},
            {"type": _NOTIFIED},
            {"type": _EXACT, "parameters": exact},
        ]
    return found


def _choosing(recipe: Recipe, options: Options) -> list[Plugin]:
    """What chooses a worker, by prefixes and by load."""
    exact = {"prefixMatchInfoProducerName": _EXACT} if events.published(recipe) else {}
    speed = {"peakPrefillThroughput": options.prefill_tokens_s} if options.prefill_tokens_s else {}
    chosen = [
        _plugin("inflight-load-producer", exact),
        _plugin(_AFFINITY, exact | speed),
        *({"type": name} for name in ("token-load-scorer", "active-request-scorer", "max-score-picker")),
    ]
    if recipe.aggregated:
        return [{"type": "single-profile-handler"}, *chosen]
    decider = _decider(recipe)
    handler = _plugin("disagg-profile-handler", {"deciders": {"prefill": decider["type"]}})
    return [{"type": "prefill-filter"}, {"type": "decode-filter"}, *chosen, decider, handler]


def _decider(recipe: Recipe) -> Plugin:
    """Nothing else than these two is there to choose from; 0 would turn the second off for every request."""
    tokens = recipe.remote_from_tokens()
    if not tokens:
        return {"type": "always-disagg-pd-decider"}
    return _plugin("prefix-based-pd-decider", {"nonCachedTokens": tokens})


def _profiles(recipe: Recipe) -> list[dict[str, Any]]:
    """Prefill where the prompt is cached unless that one is behind; decode where the fewest requests run."""
    if recipe.aggregated:
        return [_profile("default", _AFFINITY, "active-request-scorer", "token-load-scorer", "max-score-picker")]
    return [
        _profile("prefill", "prefill-filter", _AFFINITY, "token-load-scorer", "max-score-picker"),
        _profile("decode", "decode-filter", "active-request-scorer", "max-score-picker"),
    ]


def _profile(name: str, *plugins: str) -> dict[str, Any]:
    return {"name": name, "plugins": [{"pluginRef": plugin} for plugin in plugins]}


def _plugin(kind: str, parameters: dict[str, Any]) -> Plugin:
    return {"type": kind, **({"parameters": parameters} if parameters else {})}

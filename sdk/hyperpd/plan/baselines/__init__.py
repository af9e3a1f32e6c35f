"""The field's published rules, for comparing on the same traffic; no gateway carries them.

Re-implemented from their documentation, behind the interfaces of `hyperpd.routing`: one rule per file, with its
formula, its source and its units. `POLICIES` and `DECIDERS` are the ones a replay offers, the gateway's own included.
"""

from __future__ import annotations

from hyperpd.plan.baselines.aibrix import AIBrix
from hyperpd.plan.baselines.bounded_prefix_hash import BoundedPrefixHash
from hyperpd.plan.baselines.cache_aware import CacheAware
from hyperpd.plan.baselines.dynamo_cost import DynamoCost
from hyperpd.plan.baselines.isl_bounding import ISLBounding
from hyperpd.plan.baselines.llm_d_affinity import LLMDAffinity
from hyperpd.plan.baselines.llm_d_blend import LLMDBlend
from hyperpd.plan.baselines.llm_d_decider import LLMDDecider
from hyperpd.plan.baselines.lmetric import LMetric
from hyperpd.plan.baselines.power_of_two import PowerOfTwo
from hyperpd.plan.baselines.prefill_load import PrefillLoad
from hyperpd.plan.baselines.raw_threshold import RawThreshold
from hyperpd.plan.baselines.vllm_bypass import VLLMBypass
from hyperpd.routing import deciders, policies

_POLICIES = (PowerOfTwo, BoundedPrefixHash, CacheAware, LMetric, LLMDBlend, LLMDAffinity, DynamoCost, AIBrix)
_DECIDERS = (LLMDDecider, RawThreshold, ISLBounding, PrefillLoad, VLLMBypass)
POLICIES: dict[str, type[policies.Policy]] = policies.POLICIES | {policy.name: policy for policy in _POLICIES}
DECIDERS: dict[str, type[deciders.Decider]] = deciders.DECIDERS | {decider.name: decider for decider in _DECIDERS}

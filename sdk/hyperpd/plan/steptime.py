"""How long one engine step takes: a roofline of published figures, in few enough terms to sum over many steps.

    step = overhead + max(weights read, arithmetic of its tokens) + their all-reduce
         + attention of prefill chunks to what is before them + KV cache read by decodes

A step of a chunk is bound by arithmetic, one of decodes by memory. `Efficiency` is the share of the published figures
that is reached: a plain assumption, not a fit; tests/sdk/plan/test_steptime.py holds the form against measured runs.
A model in FP8 is counted with bfloat16's arithmetic and its own bytes, which is a little slow for its prefills.
"""

from __future__ import annotations

from dataclasses import dataclass

from hyperpd.errors import RecipeError
from hyperpd.models import KnownModel


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as its maker publishes it: memory bandwidth in bytes/s, dense bfloat16 in FLOP/s, and what one direction
    of its link to its neighbours carries, in bytes/s."""

    memory_bytes_s: float
    flop_s: float
    link_bytes_s: float
    source: str


# By instances.InstanceType's `gpu` and `gpu_gib`.
GPUS = {
    ("A100", 40): Gpu(1.555e12, 312e12, 300e9, "NVIDIA A100 datasheet, SXM 40 GB"),
    ("A100", 80): Gpu(2.039e12, 312e12, 300e9, "NVIDIA A100 datasheet, SXM 80 GB"),
    ("H100", 80): Gpu(3.35e12, 989.4e12, 450e9, "NVIDIA H100 datasheet, SXM; FLOP/s without sparsity"),
    ("H200", 141): Gpu(4.8e12, 989.4e12, 450e9, "NVIDIA H200 datasheet, SXM; FLOP/s without sparsity"),
    ("L4", 22): Gpu(0.3e12, 121e12, 32e9, "NVIDIA L4 datasheet; FLOP/s without sparsity; PCIe 4 x16"),
    ("L40S", 44): Gpu(0.864e12, 362e12, 32e9, "NVIDIA L40S datasheet; FLOP/s without sparsity; PCIe 4 x16"),
}


@dataclass(frozen=True, slots=True)
class Efficiency:
    """Shares of published figures, 0 to 1, and fixed costs of a step in seconds. Assumptions, all of them."""

    memory: float = 0.80
    arithmetic: float = 0.65
    attention: float = 0.40
    link: float = 0.75
    step_s: float = 1e-3  # scheduling, launching, sampling
    all_reduce_s: float = 6e-6  # latency of one all-reduce; two for each layer


@dataclass(frozen=True, slots=True)
class StepTime:
    """Step times of one worker, in seconds. The terms are public: a simulation sums them over many steps at once."""

    overhead_s: float
    weights_s: float  # reading all weights that are not routed experts
    experts_s: float  # reading all routed experts
    expert_share: float  # of the experts, those one token uses
    token_s: float  # arithmetic of one token
    link_s: float  # all-reduces of one token
    attention_s: float  # one prefill token looking at one token before it
    kv_s: float  # reading the KV cache of one token

    def tokens_s(self, tokens: int) -> float:
        """A step of `tokens` tokens without attention and KV cache."""
        read_s = self.weights_s
        if self.experts_s:
            read_s += self.experts_s * (1 - (1 - self.expert_share) ** tokens)
        return self.overhead_s + max(read_s, tokens * self.token_s) + tokens * self.link_s

    def prefill_s(self, tokens: int, chunk_tokens: int, cached_tokens: int = 0) -> float:
        """A prompt of `tokens`, of which `cached_tokens` are there, alone, in chunks of at most `chunk_tokens`."""
        total_s, done = 0.0, cached_tokens
        while done < tokens:
            chunk = min(chunk_tokens, tokens - done)
            total_s += self.tokens_s(chunk) + self.attention_s * chunk * (done + chunk / 2)
            done += chunk
        return total_s

    def decode_s(self, sequences: int, context_tokens: int) -> float:
        """A step of `sequences` decodes whose contexts add up to `context_tokens`."""
        return self.tokens_s(sequences) + self.kv_s * context_tokens


def step_time(
    model: KnownModel, gpu: Gpu, tensor: int, kv_bytes_per_token: int, efficiency: Efficiency = Efficiency()
) -> StepTime:
    """The step times of `model` on `tensor` GPUs of a kind; `kv_bytes_per_token` over all layers and heads."""
    memory_bytes_s = tensor * gpu.memory_bytes_s * efficiency.memory
    layers, hidden = model.kv.layers, model.hidden_size
    used = model.experts_per_token / model.experts if model.experts else 0.0
    reduced_bytes = 2 * layers * hidden * 2 * 2 * (tensor - 1) / tensor  # two in a layer, bfloat16, a ring's share
    return StepTime(
        overhead_s=efficiency.step_s + (2 * layers * efficiency.all_reduce_s if tensor > 1 else 0.0),
        weights_s=(model.weights_bytes - model.expert_bytes) / memory_bytes_s,
        experts_s=model.expert_bytes / memory_bytes_s,
        expert_share=used,
        token_s=2 * model.active_parameters / (tensor * gpu.flop_s * efficiency.arithmetic),
        link_s=reduced_bytes / (gpu.link_bytes_s * efficiency.link),
        attention_s=4 * layers * hidden / (tensor * gpu.flop_s * efficiency.attention),
        kv_s=kv_bytes_per_token / memory_bytes_s,
    )


def gpu_of(kind: str, gib: int) -> Gpu:
    """The figures of an instance's GPU. Raises RecipeError where none are kept."""
    if found := GPUS.get((kind, gib)):
        return found
    known = ", ".join(f"{name} {size} GB" for name, size in GPUS)
    raise RecipeError("instance type", [f"no step times for {kind} {gib} GB; there are {known}"])

"""The figures that predictions start from, measured through the serving path: what is sent, and what its times mean."""

from __future__ import annotations

import asyncio
import math
import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hyperpd import capacity, instances, model, models
from hyperpd.environment import model_path
from hyperpd.errors import HyperpdError, RecipeError
from hyperpd.plan.probe import Mode, Times
from hyperpd.recipe import Recipe

AT_ONCE = 8  # streams on each worker, a batch usually seen
STREAM_TOKENS = 64
ROUNDS = 9
LEAST_ROUNDS = 6  # samples, of which fewer tell nothing with 95 % confidence
_BEYOND = 0.025  # of each side of an interval
_BATCHES = 3
_STREAM_PROMPT_TOKENS = 32
_CHUNKS = 4  # of a long prompt
_CHUNK_TOKENS = 2048  # vLLM 0.32 on a CPU; capacity.batched_tokens for GPUs
_OUTPUT_TOKENS = 2  # of one no gateway makes a handoff
Ask = Callable[[int, int, Mode], Awaitable[Times]]  # prompt tokens, output tokens, mode → its times


@dataclass(frozen=True, slots=True)
class Plan:
    """What is sent: in each round a short and a long prompt by each path, one at a time; then batches of streams.

    long_chunks: of the long prompt; 1 where the model takes no more, and the short one is a part of a chunk.
    streams: at once, on all workers together.
    """

    short_tokens: int
    long_tokens: int
    long_chunks: int
    streams: int
    remote: bool
    kv_bytes_per_token: int
    vocabulary: int
    rounds: int = ROUNDS

    @property
    def chunk_tokens(self) -> int:
        """Length of the prompts that the prefill rate is measured with."""
        return self.long_tokens if self.long_chunks == 1 else self.short_tokens

    @property
    def batches(self) -> int:
        """Of which the streams are samples enough together."""
        return max(_BATCHES, math.ceil(LEAST_ROUNDS / self.streams))

    @property
    def requests(self) -> int:
        """All of them, with a first round and a first batch that only warm up."""
        return (self.rounds + 1) * (4 if self.remote else 2) + (self.batches + 1) * self.streams

    @property
    def tokens(self) -> int:
        """Prompt tokens of all requests."""
        each = (self.short_tokens + self.long_tokens) * (2 if self.remote else 1)
        return (self.rounds + 1) * each + (self.batches + 1) * self.streams * _STREAM_PROMPT_TOKENS


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds to the first token: computed where it decodes, and elsewhere, where there is an elsewhere."""

    local_short_s: float
    local_long_s: float
    remote_short_s: float = 0.0
    remote_long_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Figure:
    """A median of `samples`, with 95 % confidence between low and high; value None: `why` there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None
    samples: int = 0
    why: str = ""


def plan(recipe: Recipe, folder: Path | None = None, rounds: int = ROUNDS) -> Plan:
    """What calibrates a fleet of `recipe`. folder: of its model's config.json, where neither is known otherwise.

    Raises RecipeError where nothing is known of the model, or it takes no prompts worth measuring.
    """
    limits = recipe.gateway.limits
    longest = min(recipe.model.max_len_tokens - _OUTPUT_TOKENS, limits.prompt_tokens or recipe.model.max_len_tokens)
    chunk = min(_chunk_tokens(recipe), longest)
    long_chunks = _CHUNKS if _CHUNKS * chunk <= longest else 1
    short, long = (chunk, _CHUNKS * chunk) if long_chunks > 1 else (chunk // _CHUNKS, chunk)
    problems = []
    if short < recipe.kv_transfer.block_size_tokens or longest < _STREAM_PROMPT_TOKENS + STREAM_TOKENS:
        problems.append(f"model.max_len_tokens: prompts of {longest} tokens at most are too short to measure anything")
    kv, vocabulary, unknown = _facts(recipe, folder)
    problems += unknown
    if problems:
        raise RecipeError(recipe.name, problems)
    answering = recipe.decode or recipe.role("aggregated")
    workers = answering.replicas * answering.parallel.data
    room = int(capacity.number(answering.engine.get("max-num-seqs")) or AT_ONCE)
    streams = min(workers * min(AT_ONCE, room), limits.concurrent_requests or workers * AT_ONCE)
    return Plan(short, long, long_chunks, streams, recipe.prefill is not None, kv, vocabulary, rounds)


async def measure(
    planned: Plan, ask: Ask, tell: Callable[[str], None], clock: Callable[[], float]
) -> tuple[list[Round], list[float]]:
    """Send what was planned: the rounds, and the gaps of all streams in seconds. Raises RequestError at the first
    request that fails. tell: is told what comes, and how long it may take. clock: seconds, for that alone."""
    tell("a first round, to warm up")
    began_s = clock()
    await _round(planned, ask)
    round_s = clock() - began_s
    await _batch(planned, ask)
    batch_s = clock() - began_s - round_s
    tell(f"expected: about {planned.rounds * round_s + planned.batches * batch_s:.0f} s more")
    rounds = []
    for number in range(planned.rounds):
        rounds.append(await _round(planned, ask))
        tell(f"round {number + 1} of {planned.rounds}: {_said(planned, rounds[-1])}")
    gaps_s: list[float] = []
    for number in range(planned.batches):
        batch = await _batch(planned, ask)
        gaps_s += batch
        said = f"{planned.streams} streams at once, {statistics.median(batch) * 1000:.1f} ms between two tokens"
        tell(f"batch {number + 1} of {planned.batches}: {said}")
    return rounds, gaps_s


def fit(planned: Plan, rounds: Sequence[Round], gaps_s: Sequence[float]) -> dict[str, Figure]:
    """The figures by the names that routing.calibration.Calibration has for them.

    Each round tells each figure once. A figure is there where it is above 0 with 95 % confidence; else it is lost in
    the noise, and said to be so: on a machine that does much else, more rounds find it again.

    With c tokens a chunk, and y(n) = TTFT(n) / n: attention_s = (y(4c) - y(c)) / 1.5c, and the rest of y(c) is
    1 / prefill_tokens_per_s: both TTFTs come out again of Calibration.prefill_s. d(n) = TTFT by pd - TTFT of the same
    length where it decodes = n * kv_bytes_per_token / pair_bytes_per_s + handoff_s. The rate is that of workers that
    decode: where those of prefill are of another kind, what they are faster or slower is counted as the handoff's.
    """
    figures = _rate(planned, rounds)
    figures["step_s"] = _positive(gaps_s, "all tokens of a stream came at once")
    figures["kv_bytes_per_token"] = Figure(planned.kv_bytes_per_token)
    if planned.remote:
        figures |= _way(planned, rounds)
    else:
        none = Figure(None, why="there is no prefill role")
        figures |= {"pair_bytes_per_s": none, "handoff_s": none}
    return figures


def text(figures: Mapping[str, Figure], about: Sequence[str]) -> str:
    """A recipe's block gateway.calibration, as YAML. about: lines that stand above it as comments."""
    lines = [f"# {line}" for line in about]
    lines += ["gateway:", "  calibration:"]
    for name, figure in figures.items():
        if figure.value is None:
            lines.append(f"    # {name}: not measurable here: {figure.why}")
            continue
        said = "  # of the model's shape"
        if figure.low is not None and figure.high is not None:
            said = f"  # median of {figure.samples}; 95 % confidence: {_number(figure.low)} to {_number(figure.high)}"
        lines.append(f"    {name}: {_number(figure.value)}{said}")
    return "\n".join(lines) + "\n"


def _rate(planned: Plan, rounds: Sequence[Round]) -> dict[str, Figure]:
    chunk, long = planned.chunk_tokens, planned.long_tokens
    if planned.long_chunks == 1:
        attention = Figure(None, why=f"the model takes no prompt of {_CHUNKS} chunks")
        return _named(_median([one.local_long_s / chunk for one in rounds]), attention)
    each_s = [one.local_short_s / chunk for one in rounds]  # of a token
    further = [one.local_long_s / long - one_s for one, one_s in zip(rounds, each_s, strict=True)]
    attention = _positive(
        [one / ((long - chunk) / 2) for one in further], "a token of the long prompt took no longer than one of a chunk"
    )
    if attention.value is not None:
        without = _positive([one_s - attention.value * chunk / 2 for one_s in each_s], "")
        if without.value is not None:
            return _named(without, attention)
        attention = Figure(None, why="it would be all that the prompt of one chunk took, and more")
    return _named(_median(each_s), attention)


def _named(token_s: Figure, attention: Figure) -> dict[str, Figure]:
    return {"prefill_tokens_per_s": _inverse(token_s), "attention_s": attention}


def _way(planned: Plan, rounds: Sequence[Round]) -> dict[str, Figure]:
    short, long = planned.short_tokens, planned.long_tokens
    beside = [(one.remote_short_s - one.local_short_s, one.remote_long_s - one.local_long_s) for one in rounds]
    token_s = _positive(
        [(later - sooner) / (long - short) for sooner, later in beside], "a longer prompt took no longer to move"
    )
    handoff = _positive(
        [sooner - short * (token_s.value or 0.0) for sooner, _ in beside],
        "a prompt that was prefilled elsewhere had its first token no later",
    )
    return {"pair_bytes_per_s": _inverse(token_s, planned.kv_bytes_per_token), "handoff_s": handoff}


def _median(values: Sequence[float]) -> Figure:
    """With its interval by order statistics, which asks nothing of how the values are spread: the true median has as
    many above it as heads fall of `len(values)` coins. Of fewer than 6 values even the whole range is below 95 %."""
    ordered, count, tail, left_out = sorted(values), len(values), 0.5 ** len(values), 0
    while tail <= _BEYOND and left_out < count // 2:
        left_out += 1
        tail += math.comb(count, left_out) / 2**count
    left_out = max(0, left_out - 1)
    return Figure(statistics.median(ordered), ordered[left_out], ordered[-1 - left_out], count)


def _positive(values: Sequence[float], why: str) -> Figure:
    found = _median(values)
    assert found.low is not None
    if found.low > 0:
        return found
    below = sum(value <= 0 for value in values)
    return Figure(None, samples=found.samples, why=f"{why}, in {below} of {len(values)} samples")


def _inverse(seconds: Figure, amount: float = 1.0) -> Figure:
    """What is done in a second, where `amount` takes so long."""
    if seconds.value is None:
        return seconds
    assert seconds.low
    assert seconds.high
    return Figure(amount / seconds.value, amount / seconds.high, amount / seconds.low, seconds.samples)


async def _round(planned: Plan, ask: Ask) -> Round:
    """Each length by both paths, one right after the other: what else the machines do meets both alike."""
    first_s: dict[Mode, list[float]] = {"aggregated": [], "pd": []}
    modes: tuple[Mode, ...] = ("aggregated", "pd") if planned.remote else ("aggregated",)
    for tokens in (planned.short_tokens, planned.long_tokens):
        for mode in modes:
            first_s[mode].append((await ask(tokens, _OUTPUT_TOKENS, mode)).first_s)
    return Round(*first_s["aggregated"], *first_s["pd"])


async def _batch(planned: Plan, ask: Ask) -> list[float]:
    try:
        async with asyncio.TaskGroup() as streams:
            running = [
                streams.create_task(_times(ask(_STREAM_PROMPT_TOKENS, STREAM_TOKENS, "aggregated")))
                for _ in range(planned.streams)
            ]
    except* HyperpdError as failed:
        raise failed.exceptions[0] from None
    return [one.result().gap_s for one in running]


async def _times(asked: Awaitable[Times]) -> Times:
    return await asked


def _said(planned: Plan, one: Round) -> str:
    lengths = f"{planned.short_tokens:,} and {planned.long_tokens:,} tokens"
    elsewhere = f", pd {one.remote_short_s:.3f} and {one.remote_long_s:.3f} s" if planned.remote else ""
    return f"first token of {lengths} after {one.local_short_s:.3f} and {one.local_long_s:.3f} s{elsewhere}"


def _chunk_tokens(recipe: Recipe) -> int:
    """Of the role that decodes: its workers are those that prefill in mode aggregated."""
    spec = recipe.decode or recipe.role("aggregated")
    if spec.instance_type:
        return capacity.batched_tokens(spec, instances.find(spec.instance_type))
    return int(capacity.number(spec.engine.get("max-num-batched-tokens")) or _CHUNK_TOKENS)


def _facts(recipe: Recipe, folder: Path | None) -> tuple[int, int, list[str]]:
    """Bytes of KV cache of one token, the size of the vocabulary, and what is wrong."""
    spec = recipe.decode or recipe.role("aggregated")
    known = models.find(recipe.model.huggingface)
    if known:
        return capacity.served(recipe, known.kv, spec).kv_bytes_per_token, known.vocabulary, []
    try:
        folder = folder or Path(model_path(recipe))
        return (
            capacity.served(recipe, model.load(folder, recipe.model.dtype), spec).kv_bytes_per_token,
            model.vocabulary(folder),
            [],
        )
    except RecipeError as error:
        return 0, 0, [f"model: {error.where}: {'; '.join(error.problems)}; --model-folder names it"]


def _number(value: float) -> str:
    """Four digits, as YAML reads a number."""
    if isinstance(value, int):
        return str(value)
    if value >= 1000:
        return f"{float(f'{value:.4g}'):.0f}"
    return f"{value:.4g}" if value >= 0.001 else f"{value:.3e}"  # without a dot YAML would read a text

"""One worker's engine: vLLM's scheduler, step by step, with runs of equal steps taken at once.

A step takes one token of every decode, then chunks of prefills in order of arrival, up to `chunk_tokens`. A sequence
begins when the memory of its whole prompt is there; one with a ticket loads it and joins the decodes when it has come.
Where memory runs out the sequence that began last gives its up and computes it anew.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Protocol

from hyperpd.plan.simulate.cache import Cache
from hyperpd.plan.simulate.sequence import Limits, Sequence
from hyperpd.plan.steptime import StepTime
from hyperpd.plan.trace import BLOCK_TOKENS

ITL_BINS = 50  # of the histogram of gaps, for each factor of e: 2 % wide
_ALIKE = 0.1  # steps are taken at once while they grow by no more than this share
_MANY = 1_000_000


class Listener(Protocol):
    """What an engine tells."""

    def load(self, now_s: float, sequence: Sequence, tokens: int) -> None:
        """A sequence with a ticket has room: fetch `tokens`, then call Engine.loaded."""

    def first_token(self, now_s: float, sequence: Sequence) -> None:
        """The first token is out; of a prefill leg, its only one."""

    def ended(self, now_s: float, sequence: Sequence) -> None:
        """The last token is out."""


class Engine:
    """`at`: calls a function at a time. `itl`: gaps between tokens by bin of their length, of steps that begin within
    `watch_s`."""

    def __init__(
        self,
        step: StepTime,
        limits: Limits,
        at: Callable[[float, Callable[[float], None]], None],
        listener: Listener,
        watch_s: tuple[float, float],
    ) -> None:
        self.cache = Cache(limits.cache_tokens)
        self.itl: Counter[int] = Counter()
        self.preemptions = 0
        self.busy_s = 0.0
        self._step = step
        self._limits = limits
        self._at = at
        self._listener = listener
        self._watch_s = watch_s
        self._waiting: deque[Sequence] = deque()
        self._loading = 0
        self._loaded: list[Sequence] = []
        self._prefilling: list[Sequence] = []
        self._decoding: dict[Sequence, None] = {}  # in order of joining
        self._ends: list[tuple[int, int, Sequence]] = []  # last step of each decode
        self._order = count()
        self._fresh: list[Sequence] = []  # decodes without a first token
        self._context_tokens = 0  # of all decodes
        self._steps = 0
        self._running = False
        self._turn = 0
        self._since_s = 0.0
        self._planned = 0
        self._parts: list[tuple[Sequence, int]] = []
        self._first_s = 0.0  # of the run's steps
        self._growth_s = 0.0  # by which each is longer than the one before

    @property
    def waiting(self) -> int:
        """Sequences that have not begun, or whose prompts are on their way."""
        return len(self._waiting) + self._loading

    @property
    def running(self) -> int:
        """Sequences that have begun."""
        return len(self._prefilling) + len(self._decoding) + len(self._loaded)

    def add(self, now_s: float, sequence: Sequence) -> None:
        """Take a sequence in; it begins at the next step, when there is room."""
        # Who waits while decodes run waits for one to end; while a prompt fills the chunks nobody begins.
        blocked = self._running and bool(self._waiting or self._parts)
        self._waiting.append(sequence)
        if not blocked:
            self._wake(now_s)

    def loaded(self, now_s: float, sequence: Sequence) -> None:
        """The prompt of a sequence has come."""
        self._loading -= 1
        self._loaded.append(sequence)
        self._fill(sequence, sequence.input_tokens)
        self._wake(now_s)

    def free(self, now_s: float, sequence: Sequence) -> None:
        """Nobody will fetch the blocks of a prefill leg any more."""
        self._let_go(sequence)
        if self._waiting and not self._running:
            self._begin(now_s)

    def _wake(self, now_s: float) -> None:
        """Begin, or end a run with the step that is under way."""
        if not self._running:
            self._begin(now_s)
        elif self._planned > 1:
            steps = self._steps_until(now_s - self._since_s)
            if steps < self._planned:
                self._planned = steps
                self._end_at(self._since_s + self._run_s(steps))

    def _begin(self, now_s: float) -> None:
        self._running = False
        for sequence in self._loaded:
            self._join(sequence, self._steps + sequence.output_tokens)
            self._fresh.append(sequence)
        self._loaded.clear()
        self._admit(now_s)
        decoding = self._decoding
        while decoding and self.cache.room_tokens < len(decoding):
            self._preempt()
        if self._prefilling:
            self._plan_chunks()
        elif decoding:
            self._plan_run(len(decoding), 0.0, 0.0, self._steps_of_run())
        else:
            return
        self._running = True
        self._since_s = now_s
        self._end_at(now_s + self._run_s(self._planned))

    def _plan_chunks(self) -> None:
        """A step of decodes and chunks; of one prompt that fills them, as many whole chunks as nothing else changes."""
        decodes = len(self._decoding)
        left = whole = max(0, self._limits.chunk_tokens - decodes)
        looks = 0.0
        for sequence in self._prefilling:
            if not left:
                break
            part = min(left, sequence.goal_tokens - sequence.done_tokens)
            looks += part * (sequence.done_tokens + part / 2)
            left -= part
            self._parts.append((sequence, part))
        steps, grows = 1, 0.0
        first = self._prefilling[0]
        if whole and len(self._parts) == 1 and not left:
            steps = min(self._steps_of_run(), (first.goal_tokens - first.done_tokens) // whole)
            grows = whole * whole
        self._plan_run(decodes + whole - left, looks, grows, steps)

    def _plan_run(self, tokens: int, looks: float, grows: float, steps: int) -> None:
        """Steps of `tokens` that look at `looks` tokens before them, each at `grows` more than the one before."""
        step = self._step
        self._first_s = step.tokens_s(tokens) + step.attention_s * looks + step.kv_s * self._context_tokens
        self._growth_s = step.attention_s * grows + step.kv_s * len(self._decoding)
        alike = int(_ALIKE * self._first_s / self._growth_s) if self._growth_s else steps
        self._planned = max(1, min(steps, alike))

    def _steps_of_run(self) -> int:
        """Steps until a decode ends or memory does."""
        decodes, ends = len(self._decoding), self._ends
        if not decodes:
            return _MANY
        if self._fresh:
            return 1
        while ends[0][1] != ends[0][2].join:  # preempted since
            heappop(ends)
        return min(ends[0][0] - self._steps, self.cache.room_tokens // decodes)

    def _run_s(self, steps: int) -> float:
        """Seconds of the next `steps`."""
        return steps * self._first_s + self._growth_s * steps * (steps - 1) / 2

    def _steps_until(self, elapsed_s: float) -> int:
        """Steps that are over or under way after `elapsed_s` of a run: the inverse of `_run_s`, at least 1."""
        square = self._growth_s / 2
        linear = self._first_s - square
        exact = 2 * elapsed_s / (linear + math.sqrt(linear * linear + 4 * square * elapsed_s))
        return max(1, math.ceil(exact - 1e-9))

    def _end_at(self, when_s: float) -> None:
        self._turn += 1
        turn = self._turn
        self._at(when_s, lambda now_s: self._end(now_s) if turn == self._turn else None)

    def _end(self, now_s: float) -> None:
        steps, decoding = self._planned, self._decoding
        decodes = len(decoding)
        run_s = now_s - self._since_s
        self.busy_s += run_s
        self._steps += steps
        if decodes:
            self.cache.take(steps * decodes)
            self._context_tokens += steps * decodes
            if self._watch_s[0] <= self._since_s < self._watch_s[1]:
                gaps = steps * decodes - len(self._fresh)
                self.itl[round(math.log(run_s / steps) * ITL_BINS)] += gaps
        if self._fresh:
            for sequence in self._fresh:
                sequence.started = True
                self._listener.first_token(now_s, sequence)
            self._fresh.clear()
        while self._ends and self._ends[0][0] <= self._steps:
            _, join, sequence = heappop(self._ends)
            if sequence.join == join:
                self._leave(sequence)
                self._let_go(sequence)
                self._listener.ended(now_s, sequence)
        parts, self._parts = self._parts, []
        for sequence, part in parts:
            self._fill(sequence, sequence.done_tokens + part * steps)
            if sequence.done_tokens == sequence.goal_tokens:
                self._prefilling.remove(sequence)
                self._prefilled(now_s, sequence)
        self._begin(now_s)

    def _prefilled(self, now_s: float, sequence: Sequence) -> None:
        first = not sequence.started
        sequence.started = True
        sequence.generated += 1
        if sequence.leg == "prefill":
            self._listener.first_token(now_s, sequence)
            return
        if first:
            self._listener.first_token(now_s, sequence)
        left = sequence.output_tokens - sequence.generated
        if left:
            self._join(sequence, self._steps + left)
        else:
            self._let_go(sequence)
            self._listener.ended(now_s, sequence)

    def _admit(self, now_s: float) -> None:
        waiting, cache, limits = self._waiting, self.cache, self._limits
        left = limits.chunk_tokens - len(self._decoding)
        for one in self._prefilling:
            left -= one.goal_tokens - one.done_tokens
        while waiting and left > 0 and self.running + self._loading < limits.sequences:
            sequence = waiting[0]
            found = cache.match(sequence.blocks)
            if found * BLOCK_TOKENS >= sequence.goal_tokens:  # the last token is always computed
                found -= 1
            held = sequence.blocks[:found]
            cache.hold(held)
            tokens = sequence.goal_tokens - found * BLOCK_TOKENS
            # One that was preempted would be so again at once, without room for a step of all.
            step_tokens = len(self._decoding) + 1 if sequence.joined_step >= 0 else 0
            if tokens + step_tokens > cache.room_tokens:
                cache.let_go(held)
                return
            waiting.popleft()
            cache.take(tokens)
            sequence.held_blocks = found
            sequence.taken_tokens = tokens
            sequence.done_tokens = found * BLOCK_TOKENS
            if not sequence.started:
                sequence.cached_tokens = sequence.done_tokens
            if sequence.leg == "decode" and not sequence.generated and sequence.joined_step < 0:
                self._loading += 1
                self._listener.load(now_s, sequence, tokens)
            else:
                self._prefilling.append(sequence)
                left -= tokens

    def _fill(self, sequence: Sequence, done_tokens: int) -> None:
        """Whole blocks of the prompt up to `done_tokens` can be found by others."""
        sequence.done_tokens = done_tokens
        whole = min(done_tokens // BLOCK_TOKENS, len(sequence.blocks))
        if whole > sequence.held_blocks:
            filled = sequence.blocks[sequence.held_blocks : whole]
            self.cache.fill(filled)
            sequence.taken_tokens -= BLOCK_TOKENS * len(filled)
            sequence.held_blocks = whole

    def _join(self, sequence: Sequence, last_step: int) -> None:
        sequence.joined_step = self._steps
        sequence.join = next(self._order)
        self._decoding[sequence] = None
        self._context_tokens += sequence.goal_tokens
        heappush(self._ends, (last_step, sequence.join, sequence))

    def _leave(self, sequence: Sequence) -> None:
        """No decode any more; its tokens since it joined are added up."""
        steps = self._steps - sequence.joined_step
        sequence.join = -1
        del self._decoding[sequence]
        self._context_tokens -= sequence.goal_tokens + steps
        sequence.generated += steps
        sequence.taken_tokens += steps
        sequence.goal_tokens += steps

    def _preempt(self) -> None:
        sequence = next(reversed(self._decoding))
        self._leave(sequence)
        if not sequence.started:
            self._fresh.remove(sequence)
        self._let_go(sequence)
        self._waiting.appendleft(sequence)
        self.preemptions += 1

    def _let_go(self, sequence: Sequence) -> None:
        self.cache.give(sequence.taken_tokens)
        self.cache.let_go(sequence.blocks[: sequence.held_blocks])
        sequence.taken_tokens = sequence.held_blocks = 0

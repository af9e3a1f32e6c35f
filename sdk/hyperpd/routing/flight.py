"""A request under way: what is booked on its workers, taken back as it goes on, and what is learnt on the way."""

from __future__ import annotations

from collections.abc import Sequence

from hyperpd.routing.choice import Choice, Explanation
from hyperpd.routing.ledger import Ledger
from hyperpd.routing.request import Request


class Flight:
    """Told of what happens to the request, each at its time, on the router's clock; all that is booked is returned.

    Remote: `prefilled`, `first_token`, `end`. Local: `first_token`, `end`. `started` before, where the prompt is not
    sent at once. `fall_back` where a remote prefill came to nothing. `end` may come at any time, whatever became of the
    request, and more than once. A worker counts as having the prompt cached once its prefill is sent there, decode once
    a remote one has answered.
    """

    __slots__ = (
        *("_first_s", "_held", "_lacked_tokens", "_ledger", "_local", "_moving_s", "_over", "_remote", "_seen"),
        *("_sent_s", "choice", "explanation", "request"),
    )

    def __init__(
        self, ledger: Ledger, request: Request, choice: Choice, now_s: float, explanation: Explanation | None
    ) -> None:
        self.request = request
        self.choice = choice
        self.explanation = explanation  # where it was asked for
        self._ledger = ledger
        self._sent_s = now_s
        self._moving_s: float | None = None  # since when its KV moves to decode, where nothing holds it up
        self._first_s: float | None = None
        self._seen = True  # the first token, where there is one
        self._over = False
        self._remote = choice.prefill is not None  # a prefill worker is at it
        # Of the prompt, what decode does not have. The rest may be held by others; if not, the next scrape says so.
        self._lacked_tokens = choice.decode.uncached_tokens
        self._held = 0  # tokens of memory on decode's worker
        ledger.sent(choice.decode.worker, request)
        if not choice.prefill:
            self._hold()
            ledger.decode.holds(choice.decode.worker, request.blocks, now_s)
        else:
            ledger.prefill.book(choice.prefill.worker, choice.prefill, now_s)
            ledger.prefill.holds(choice.prefill.worker, request.blocks, now_s)
        self._local = None if choice.prefill else choice.decode  # booked on decode's worker
        ledger.decode.book(choice.decode.worker, self._local, now_s)

    def started(self, now_s: float) -> None:
        """Its prompt is sent only now: what it waited for before that teaches nothing of the worker's pace."""
        if not self._over and self._first_s is None and (self._remote or self._local):
            self._sent_s = now_s

    def prefilled(self, now_s: float) -> None:
        """The remote prefill has answered; its KV moves as soon as decode takes it."""
        if self._remote and self.choice.prefill:
            self._remote = False
            decode = self.choice.decode.worker
            # What others brought there since is neither moved nor held once more.
            lacked_tokens = self._ledger.decode.lacked_tokens(decode, self.request, now_s)
            self._lacked_tokens = min(self._lacked_tokens, lacked_tokens)
            self._hold()
            alone = decode.waiting == 1 and not decode.foreign_waiting
            self._moving_s = now_s if alone else None
            self._ledger.prefill.done(self.choice.prefill.worker, self.choice.prefill, self._sent_s, now_s)
            self._ledger.decode.holds(decode, self.request.blocks, now_s)  # no sooner: a prefill may wait for long

    def fall_back(self, now_s: float) -> None:
        """The remote prefill failed, or its ticket is not used: decode computes the prompt itself.

        A first token that was only guessed has not come, then.
        """
        guessed = self._first_s is not None and not self._seen
        if self._over or (not guessed and (self._first_s is not None or self._local)):
            return
        self._give_up_prefill(now_s)
        self._hold()
        self._moving_s = None
        self._sent_s = now_s
        decode = self.choice.decode
        if guessed:
            self._first_s, self._seen = None, True
            self._ledger.decode.end(decode.worker)
        else:
            self._ledger.decode.cancel(decode.worker, None, now_s)
        self._local = decode
        self._ledger.decode.book(decode.worker, self._local, now_s)
        self._ledger.decode.holds(decode.worker, self.request.blocks, now_s)

    def first_token(self, now_s: float, *, seen: bool = True) -> None:
        """Decode has sent its first token. seen: and that is no guess, as of an answer that comes as a whole."""
        if self._first_s is not None or self._over:
            return
        self.prefilled(now_s)
        self._first_s, self._seen = now_s, seen
        decode = self.choice.decode.worker
        self._ledger.decode.done(decode, self._local, self._sent_s, now_s, seen=seen)
        self._ledger.decode.begin(decode)
        if seen and self._moving_s is not None:
            self._ledger.moved(self.choice, self._lacked_tokens, now_s - self._moving_s, now_s)

    def end(self, now_s: float, output_tokens: int = 0, blocks: Sequence[int] = ()) -> None:
        """It is over, answered or not. output_tokens: generated. blocks: chain of prompt and output, where known."""
        if self._over:
            return
        self._over = True
        self._give_up_prefill(now_s)
        decode = self.choice.decode.worker
        decode.kv_tokens -= self._held
        if self._first_s is None:
            self._ledger.decode.cancel(decode, self._local, now_s)
        else:
            self._ledger.decode.end(decode)
            decoded_s = now_s - self._first_s if self._seen else None
            self._ledger.ended(self.request, decode, output_tokens, decoded_s, now_s)
        if blocks:
            self._ledger.decode.holds(decode, blocks, now_s)

    def _hold(self) -> None:
        """It has memory on decode's worker, or waits for it there: not before a remote prefill has answered."""
        if not self._held:
            output_tokens = self.request.output_tokens or round(self._ledger.knowledge.output_tokens.value)
            self._held = self._lacked_tokens + output_tokens
            self.choice.decode.worker.kv_tokens += self._held

    def _give_up_prefill(self, now_s: float) -> None:
        if self._remote and self.choice.prefill:
            self._remote = False
            self._ledger.prefill.cancel(self.choice.prefill.worker, self.choice.prefill, now_s)

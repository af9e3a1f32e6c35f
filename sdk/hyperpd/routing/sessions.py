"""Which worker answered a conversation last, and what it holds of it beyond the prompts that were sent."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from hyperpd.routing.request import Request
from hyperpd.routing.worker import Worker

_TTL_S = 300.0  # as llm-d's session affinity
_MOST = 100_000


@dataclass(slots=True)
class Session:
    """The last turn. held_tokens: its prompt and what was generated from it, in full blocks."""

    worker: Worker
    prompt_blocks: int
    last_block: int
    held_tokens: int
    last_s: float


class Sessions:
    """Bounded, forgotten after a while. The next prompt holds the answer too, which no prompt sent so far did."""

    def __init__(self, block_tokens: int) -> None:
        self._block_tokens = block_tokens
        self._known: OrderedDict[str, Session] = OrderedDict()

    def ended(self, request: Request, worker: Worker, output_tokens: int, now_s: float) -> None:
        """A turn came to its end at `worker`."""
        if not request.session:
            return
        held = (request.tokens + max(0, output_tokens - 1)) // self._block_tokens * self._block_tokens
        last = request.blocks[-1] if request.blocks else 0
        self._known[request.session] = Session(worker, len(request.blocks), last, held, now_s)
        self._known.move_to_end(request.session)
        if len(self._known) > _MOST:
            self._known.popitem(last=False)

    def of(self, request: Request, now_s: float) -> Session | None:
        """The turn before this one, where this prompt begins with that one's."""
        session = self._known.get(request.session) if request.session else None
        if not session or now_s - session.last_s > _TTL_S:
            return None
        told = session.prompt_blocks
        if told > len(request.blocks) or (told and request.blocks[told - 1] != session.last_block):
            return None
        return session

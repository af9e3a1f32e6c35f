"""vLLM's API server on a CPU, with two idle spins tamed. Never used with GPUs.

Measured with vLLM 0.32 and NIXL 1.5.1 where engines share cores:

- vLLM's shared-memory queue waits with `sched_yield`. With two workers on one core the kernel left
  one of them runnable but not running for 31 s, until the other's lease had expired. A 200 µs sleep
  instead: median wait 0.42 → 0.12 s, p90 31 → 0.15 s.
- NIXL's progress thread polls without a pause: 77-93 % of a core per idle worker. With a pause of
  200 µs: 3-5 %.

Engine processes are spawned, and a spawned child imports this module again as its main module, so
what is done at import is done in all of them.
"""

from __future__ import annotations

import os
import time
from typing import Any

_PAUSE_US = 200


def _yield_core() -> None:
    time.sleep(_PAUSE_US / 1e6)


def _pause_progress_threads() -> None:
    from nixl_cu12 import _bindings

    plain = _bindings.nixlAgent

    def agent(name: str, config: Any) -> Any:
        config.pthrDelay = _PAUSE_US
        return plain(name, config)

    _bindings.nixlAgent = agent


os.sched_yield = _yield_core
_pause_progress_threads()

if __name__ == "__main__":
    from vllm.entrypoints.launchers.api_server.entry import main

    main()

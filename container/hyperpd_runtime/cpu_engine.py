"""vLLM's API server on a CPU: two idle spins tamed, and a start that imports once. Never used with GPUs.

Measured with vLLM 0.32 and NIXL 1.5.1 where engines share cores:

- vLLM's shared-memory queue waits with `sched_yield`. With two workers on one core the kernel left
  one of them runnable but not running for 31 s, until the other's lease had expired. A 200 µs sleep
  instead: median wait 0.42 → 0.12 s, p90 31 → 0.15 s.
- NIXL's progress thread polls without a pause: 77-93 % of a core per idle worker. With a pause of
  200 µs: 3-5 %.
- A start is import time, in each of an engine's three processes, since vLLM spawns them on CPUs.
  Here they are forked from the process that has imported vLLM, and so are the engines of one machine.
  Fork is safe because nothing has run a parallel region or created a NIXL agent by then.

    python -m hyperpd_runtime.cpu_engine --model …    one engine
    python -m hyperpd_runtime.cpu_engine              the warm process: imports vLLM, then forks an
                                                      engine for every order on standard input

An order is a line of JSON: {"argv", "env", "cpus", "log"}, argv without interpreter and module. The
answer is a line with the engine's pid. The engine is no child of the warm process but adopted by
the nearest subreaper (the node), which can wait for it; the warm process may end at any time.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
import time
from typing import Any, NoReturn

_PAUSE_US = 200
_PR_SET_PDEATHSIG = 1
# What engine core and workers import first thing. What a model needs besides is imported late.
_WARM = (
    "vllm.v1.engine.core",
    "vllm.v1.executor.multiproc_executor",
    "vllm.v1.worker.cpu_worker",
    "vllm.distributed.kv_transfer.kv_connector.v1.nixl",
)


def _yield_core() -> None:
    time.sleep(_PAUSE_US / 1e6)


def _pause_progress_threads() -> None:
    from nixl_cu12 import _bindings

    plain = _bindings.nixlAgent

    def agent(name: str, config: Any) -> Any:
        config.pthrDelay = _PAUSE_US
        return plain(name, config)

    _bindings.nixlAgent = agent


def _load_libnuma() -> None:
    """The copy that container/install_engine.py made, where the system has none."""
    copy = os.path.join(sys.prefix, "hyperpd-libnuma.so.1")
    if os.path.exists(copy):
        ctypes.CDLL(copy, ctypes.RTLD_GLOBAL)


def _fork_instead_of_spawn() -> None:
    from vllm.utils import system_utils

    def method() -> None:
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"

    system_utils._maybe_force_spawn = method


def _serve(argv: list[str]) -> None:
    sys.argv = [sys.argv[0], *argv]
    if not {"--data-parallel-size", "--nnodes"} & set(argv):
        from vllm.entrypoints.launchers.api_server.entry import main

        main()
        return
    # What `vllm serve` does, whose script looks for a distribution called vllm, and there is none.
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.entrypoints.serve.utils.api_utils import cli_env_setup
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    cli_env_setup()
    args = make_arg_parser(FlexibleArgumentParser()).parse_args(argv)
    validate_parsed_serve_args(args)
    ServeSubcommand.cmd(args)


def _take_orders() -> None:
    """Fork an engine for every line of standard input, until it ends."""

    for module in _WARM:
        importlib.import_module(module)
    for line in sys.stdin:
        order = json.loads(line)
        read, write = os.pipe()
        middle = os.fork()
        if middle == 0:
            middle = os.getpid()  # the engine may run only after its parent's end, and must know whose end it awaits
            engine = os.fork()
            if engine == 0:
                os.close(read)
                os.close(write)
                _become(order, middle)
            os.write(write, str(engine).encode())
            os._exit(0)
        os.close(write)
        os.waitpid(middle, 0)  # from here on the engine has its new parent
        print(os.read(read, 32).decode() or 0, flush=True)  # 0: it could not be forked
        os.close(read)


def _become(order: dict[str, Any], middle: int) -> NoReturn:
    """Turn this forked process into the engine of an order."""
    code = 1
    try:
        os.setsid()
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        os.close(nothing)
        os.close(log)
        while os.getppid() == middle:  # the death signal belongs to the parent of the moment it is set in
            time.sleep(0.001)
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        os.environ.update(order["env"])
        if order["cpus"]:
            os.sched_setaffinity(0, order["cpus"])
        _serve(order["argv"])
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


os.sched_yield = _yield_core

if __name__ == "__main__":
    _load_libnuma()
    _pause_progress_threads()
    _fork_instead_of_spawn()
    if sys.argv[1:]:
        _serve(sys.argv[1:])
    else:
        _take_orders()

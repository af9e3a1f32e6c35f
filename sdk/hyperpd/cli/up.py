"""hyperpd up: a recipe's workers and gateway on this machine."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hyperpd.cli import completion, output
from hyperpd.cli.fleet import USUAL_URL, LocalFleet
from hyperpd.errors import NotReady

if TYPE_CHECKING:
    from collections.abc import Callable

    from hyperpd.cli.documents.machine import Up

_POLL_S = 0.1
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_STOPPED = "stopped by hyperpd down or a signal"


@click.command()
@click.option(
    "--recipe",
    shell_complete=completion.recipe,
    help="Recipe file or name of a shipped one (default: tiny-cpu-1p1d, with the GPU engine tiny-gpu-1p1d).",
)
@click.option("--model", help="Model folder or Hugging Face id to serve instead of the recipe's.")
@click.option("--detach", is_flag=True, help="Return when ready; stop it with hyperpd down.")
@click.option("--port-offset", default=0, type=click.IntRange(0, 50000), help="Added to every port.")
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON document, when it is ready or ends; progress to standard error."
)
def up(recipe: str | None, model: str | None, detach: bool, port_offset: int, as_json: bool) -> None:
    """Start prefill, decode and gateway on this machine."""
    from hyperpd.recipe import load

    _gateway_is_installed()
    say = output.note if as_json else output.line
    file = load(recipe or _default())
    fleet = LocalFleet(file.recipe.name + (f"+{port_offset}" if port_offset else ""))
    description = f": {file.recipe.description}" if file.recipe.description else ""
    say(f"{file.recipe.name}{description} (recipe digest {file.digest[:12]})")
    for number in _SIGNALS:
        signal.signal(number, _interrupt)
    node = fleet.start(file.path, port_offset, model)
    ready = False
    try:
        _wait_until_ready(fleet, node, say)
        ready = True
        if as_json:
            _document(fleet)
        else:
            _show(fleet.state())
        if detach:
            say(f"stop it with: {_hyperpd()} down {fleet.name}")
            return
        say("Ctrl-C stops everything")
        node.wait()
    except (KeyboardInterrupt, OSError):  # OSError: the terminal is gone
        node.terminate()
        with contextlib.suppress(OSError):
            say("stopping …")
        node.wait()
        with contextlib.suppress(OSError):
            say("stopped")
            if as_json and not ready:
                _document(fleet)
        if not ready:
            raise click.Abort() from None
        return
    except NotReady:
        if as_json:
            _document(fleet)
        raise
    if fleet.state().get("phase") != "stopped":
        raise _ended(fleet, node)
    say(_STOPPED)


def _interrupt(*_: Any) -> None:
    """Once: make passes on a signal that the terminal has sent to its children already."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _gateway_is_installed() -> None:
    """Raises NotReady without the extra: the node could not even say so."""
    from importlib.util import find_spec

    if missing := [name for name in ("fastapi", "uvicorn", "aiohttp", "prometheus_client") if not find_spec(name)]:
        said = f"not installed: {', '.join(missing)}"
        raise NotReady(f"{said}; pip install 'hyperpd[gateway]', and an engine: in a checkout make up does both")


def _default() -> str:
    """The recipe for the engine that is installed."""
    from hyperpd.versions import installed

    return "tiny-gpu-1p1d" if installed().startswith("vllm ") else "tiny-cpu-1p1d"


def _document(fleet: LocalFleet) -> None:
    """The fleet as it is; nothing where it ended before it could say anything of itself."""
    if state := fleet.state():
        known: Up = {"name": fleet.name, **state}  # type: ignore[typeddict-item]
        output.document(known)


def _wait_until_ready(fleet: LocalFleet, node: subprocess.Popen[bytes], say: Callable[[str], None]) -> None:
    """Show every step. Raises NotReady with what ended it, also where somebody stopped it meanwhile."""
    told: dict[str, str] = {}
    while True:
        ended = node.poll() is not None
        state = fleet.state()
        for step in state.get("steps", []):
            if told.get(step["name"]) != step["state"]:
                told[step["name"]] = step["state"]
                seconds = "" if step["state"] == "running" else f" in {step['elapsed_s']} s"
                say(f"{step['name']} {'…' if step['state'] == 'running' else step['state'] + seconds}")
        if state.get("phase") == "ready":
            return
        if ended:
            if state.get("phase") == "stopped":
                raise NotReady(f"{fleet.name} was {_STOPPED} before it was ready")
            raise _ended(fleet, node)
        time.sleep(_POLL_S)


def _ended(fleet: LocalFleet, node: subprocess.Popen[bytes]) -> NotReady:
    state = fleet.state()
    lines = fleet.log.read_text(errors="replace").strip().splitlines()
    error = NotReady(state.get("error") or "\n".join(["the node ended", f"last lines of {fleet.log}:", *lines[-12:]]))
    error.exit_code = state.get("exit_code") or NotReady.exit_code
    return error


def _show(state: dict[str, Any]) -> None:
    body = f'{{"model": "{state["model"]}", "prompt": "Once upon a time", "max_tokens": 16}}'
    output.line()
    output.line(f"ready: {state['url']}   status and metrics: {state['admin_url']}")
    output.line(f"  curl {state['url']}/v1/completions -H 'Content-Type: application/json' -d '{body}'")
    url = "" if state["url"] == USUAL_URL else f" --url {state['url']}"
    output.line(f"  {_hyperpd()} invoke 'Once upon a time' --stream{url}")


def _hyperpd() -> str:
    """This very command, as the reader's shell has to spell it."""
    own = str(Path(sys.argv[0]).absolute())
    return "hyperpd" if shutil.which("hyperpd") == own else own

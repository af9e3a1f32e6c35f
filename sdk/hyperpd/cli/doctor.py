"""hyperpd doctor: would a worker start on this machine, and how fast does KV move from another one?"""

from __future__ import annotations

import json
import subprocess
import sys

import click

from hyperpd.cli import completion, output
from hyperpd.errors import FabricError, RecipeError

_MARKS = {"ok": "ok     ", "warning": "warning", "failed": "FAILED "}


def _peer(context: click.Context, option: click.Parameter, given: str) -> str:
    if given and not (given.rpartition(":")[0] and given.rpartition(":")[2].isdecimal()):
        raise click.BadParameter(f"{given}: give HOST:PORT, as in 10.0.0.1:18515, where a doctor has --listen")
    return given


@click.command()
@click.option(
    "--recipe",
    default="tiny-cpu-1p1d",
    show_default=True,
    shell_complete=completion.recipe,
    help="What the machine is meant for.",
)
@click.option("--address", default="127.0.0.1", show_default=True, help="IP address that peers connect to.")
@click.option("--instance-type", default="", help="As in ml.p5.48xlarge: counts and rates are compared with it.")
@click.option("--net-devices", default="", help="TCP: network devices; default: the one with the address.")
@click.option("--port-offset", default=0, type=click.IntRange(0, 50000), help="Added to every port.")
@click.option("--listen", type=click.IntRange(0, 65535), help="Wait on this port for another doctor's --peer.")
@click.option(
    "--peer",
    default="",
    callback=_peer,
    metavar="HOST:PORT",
    help="Read through NIXL from a doctor that listens there.",
)
@click.option("--floor-gb-s", type=float, help="With --peer: fail below this; default half of the line rate.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def doctor(as_json: bool, **given: str | int | float | None) -> None:
    """Examine this machine: ok, warning or failed, what was seen, what is wanted, what mends it."""
    argv = [sys.executable, "-m", "hyperpd_runtime.doctor"]
    for name, value in given.items():
        if value not in ("", None):
            argv += [f"--{name.replace('_', '-')}", str(value)]
    listening = given["listen"] is not None
    ran = subprocess.run(argv, stdout=None if listening else subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if listening and not ran.returncode:
        return
    if not ran.stdout:
        lines = ran.stderr.strip() or f"doctor ended with exit code {ran.returncode}"
        raise RecipeError("doctor", [lines]) if ran.returncode == 2 else FabricError(lines)
    document = json.loads(ran.stdout)
    if as_json:
        output.document(document)
    elif given["peer"]:
        line = f" ({document['gb_s'] / document['line_gb_s']:.0%} of the line)" if document["line_gb_s"] else ""
        output.line(
            f"{_MARKS['ok' if document['ok'] else 'failed']}  {document['gb_s']} GB/s{line} from {document['peer']}"
            f" by {document['backend']} over {document['transport']}; floor {document['floor_gb_s']} GB/s"
        )
    else:
        for check in document["checks"]:
            fix = f"; {check['fix']}" if check["state"] != "ok" and check["fix"] else ""
            output.line(f"{_MARKS[check['state']]}  {check['name']}: {check['seen']} (wanted {check['wanted']}){fix}")
    if ran.returncode:
        sys.exit(ran.returncode)

"""How a job tells its steps to end, on the stand-ins of slurm_stand_in.py: a step of one node, with its gateway."""

from __future__ import annotations

import re
import socket
import sys
from pathlib import Path

from hyperpd.placement import Ports
from tests.deploy import slurm_stand_in
from tests.deploy.test_slurm import script

RECIPE = """version: 1
name: one
model: {path: /fsx/m}
prefill: {}
decode: {}
kv_transfer: {fabric: local}
"""
# The task: it notes its own process, has the job told to end as sbatch --signal=B:TERM does, and waits; `listen`: with
# the admin port of a gateway. It ends at SIGTERM, or once it has answered /drain.
_TASK = """#!{python} -SE
import http.server, os, pathlib, signal
class Admin(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.send_response(202 if self.path == "/drain" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()
        pathlib.Path("{folder}/asked").write_text(self.requestline)
if {listen}:
    server = http.server.HTTPServer(("127.0.0.1", {port}), Admin)
pathlib.Path("{folder}/task").write_text(str(os.getpid()))
os.kill(int(os.environ["STAND_IN_BATCH"]), signal.SIGTERM)
server.handle_request() if {listen} else signal.pause()
"""
_SCANCEL = """#!/bin/bash
echo "$*" >>{folder}/cancelled
[ "$(wc -l <{folder}/cancelled)" -le {deaf} ] || kill -TERM "$(cat {folder}/task)"
"""
# 0.0.0.0 is this machine, and no address that the script refuses.
_SCONTROL = """#!/bin/bash
case "$*" in
"show hostnames "*) echo node-1 ;;
*) echo "NodeName=node-1 NodeAddr=0.0.0.0" ;;
esac
"""


def ended(file, folder: Path, *, listen: bool, deaf: int = 0) -> tuple[slurm_stand_in.Ran, list[str]]:
    """How the job ended, and what scancel was told; of which the task misses the first `deaf`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "shared").mkdir(mode=0o700)
    (folder / "bin").mkdir()
    said = {"folder": folder, "python": sys.executable, "port": port, "listen": listen, "deaf": deaf}
    squeue = "#!/bin/bash\necho 100.0 node\necho 100.batch batch\n"
    tools = {"python3": _TASK, "scancel": _SCANCEL, "scontrol": _SCONTROL, "squeue": squeue}
    for name, body in tools.items():
        (folder / "bin" / name).write_text(body.format(**said))
        (folder / "bin" / name).chmod(0o755)
    text = script(file, [f"folder={folder}/shared", "mode=bare", f"python={folder}/bin/python3"])
    own = f"\nadmin_port={Ports().gateway_admin}\n"
    assert own in text
    text = text.replace(own, f"\nadmin_port={port}\n").replace("\nset -u\n", "\nset -u\nexport STAND_IN_BATCH=$$\n")
    ran = slurm_stand_in.run(text, folder, [1])
    cancelled = folder / "cancelled"
    return ran, cancelled.read_text().splitlines() if cancelled.exists() else []


def test_a_gateway_beside_its_engines_is_asked_to_drain(tmp_path, load):
    """SIGTERM would reach the engines of its step, too, while it still holds requests."""
    ran, cancelled = ended(load(RECIPE), tmp_path, listen=True)
    assert (tmp_path / "asked").read_text() == "POST /drain HTTP/1.1"
    assert (ran.code, cancelled) == (0, []), ran.log
    assert "ended with exit code 0" in ran.log


def test_one_that_does_not_listen_yet_is_told_by_a_signal(tmp_path, load):
    ran, cancelled = ended(load(RECIPE), tmp_path, listen=False)
    assert (ran.code, cancelled) == (0, ["--quiet --signal=TERM 100.0"]), ran.log


def test_a_signal_that_comes_too_early_is_sent_again(tmp_path, load):
    """Between the task's trap and its command, bash takes it and goes on."""
    ran, cancelled = ended(load(RECIPE), tmp_path, listen=False, deaf=1)
    assert (ran.code, cancelled) == (0, ["--quiet --signal=TERM 100.0"] * 2), ran.log


def test_a_failure_before_anybody_waits_for_it_is_the_jobs(tmp_path, load):
    (tmp_path / "shared").mkdir(mode=0o700)
    given = [f"folder={tmp_path}/shared", "mode=bare", f"python={tmp_path}/bin/python3", "restarts=0"]
    late = '\nwhile kill -0 "$front_pid" 2>/dev/null; do sleep 0.1; done\ncode=0\n'
    text, found = re.subn("\ncode=0\n", late, script(load(RECIPE), given))
    assert found == 1
    ran = slurm_stand_in.run(text, tmp_path, [1], code=4)
    assert ran.code == 4, ran.log

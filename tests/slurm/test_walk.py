"""examples/slurm/walk.sh as it is written, on a real Slurm."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.real.fleet import ROOT
from tests.slurm.cluster import Slurm
from tests.slurm.jobs import PYTHONPATH


def test_the_walk_serves_and_leaves_nothing(cluster: Slurm, tmp_path: Path) -> None:
    command = tmp_path / "bin" / "hyperpd"
    command.parent.mkdir()
    command.write_text(f"#!{sys.executable}\nfrom hyperpd.cli.main import main\nmain()\n")
    command.chmod(0o755)
    folder = tmp_path / "shared"
    folder.mkdir(mode=0o700)
    paths = (str(command.parent), str(Path(sys.executable).parent), os.environ["PATH"])
    found = {"PATH": os.pathsep.join(paths), "PYTHONPATH": PYTHONPATH, "XDG_STATE_HOME": str(tmp_path / "state")}
    conf = {"SLURM_CONF": str(cluster.folder / "slurm.conf")}
    ran = subprocess.run(
        ["bash", ROOT / "examples" / "slurm" / "walk.sh", folder],
        env=os.environ | found | conf,
        capture_output=True,
        timeout=300,
    )
    out, err = (said.decode(errors="replace") for said in (ran.stdout, ran.stderr))
    assert ran.returncode == 0, err
    assert re.search(r"^ready: http://10\.77\.0\.\d:\d+\n(?s:answer: .+\n)\S+ \S+ ended with exit code 0$", out, re.M)
    log = next(folder.glob("tiny-cpu-1p1d-*/*/gateway.log")).read_text()
    assert " mode=pd " in log
    assert (cluster.processes(), cluster.ports()) == ([], [])

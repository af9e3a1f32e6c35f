"""Rendered jobs on the cluster of these tests: submitted, asked, looked after."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import astuple, dataclass, field
from pathlib import Path

import httpx

from hyperpd import deploy, recipe
from hyperpd.placement import JOB_STRIDE, JOBS, Ports
from tests.real.fleet import ROOT, until
from tests.slurm.cluster import Slurm

_START_S = 200
PYTHONPATH = os.pathsep.join([str(ROOT / "sdk"), str(ROOT / "container")])


def rendered(text: str, folder: Path, *settings: str) -> Path:
    """A recipe's text as the script in a folder of its own, to run with this Python; jobs share `folder`/shared."""
    name = text.split("name: ")[1].split("\n")[0]
    (folder / name).mkdir()
    (folder / "shared").mkdir(mode=0o700, exist_ok=True)
    path = folder / name / "recipe.yaml"
    path.write_text(text)
    file = recipe.load(path)
    said = [f"folder={folder}/shared", "mode=bare", f"python={sys.executable}", *settings]
    script = folder / name / "job.sh"
    script.write_text(deploy.texts(deploy.render(file, "slurm", said), file, said)["job.sh"])
    return script


@dataclass
class Job:
    """A job from sbatch on. `restart`: how often Slurm has started it again."""

    slurm: Slurm
    script: Path
    restart: int = 0
    id: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = self.script.parent.name
        self.began = time.monotonic()
        self.id = self.slurm.submit(self.script, PYTHONPATH=PYTHONPATH)

    @property
    def offset(self) -> int:
        """By how much its ports are aside."""
        return (int(self.id) + self.restart) % JOBS * JOB_STRIDE

    @property
    def url(self) -> str:
        return f"http://10.77.0.1:{Ports().gateway_api + self.offset}"

    @property
    def admin_url(self) -> str:
        return f"http://10.77.0.1:{Ports().gateway_admin + self.offset}"

    @property
    def folder(self) -> Path:
        """Of this run."""
        return self.script.parent.parent / "shared" / f"{self.name}-{self.id}" / str(self.restart)

    @property
    def log(self) -> str:
        return (self.script.parent.parent / "shared" / f"{self.name}-{self.id}.log").read_text()

    def ready(self) -> bool:
        """Whether its gateway would serve as the recipe says."""
        state = self.slurm.state(self.id)
        assert state in ("PENDING", "RUNNING", "CONFIGURING"), f"{state}\n{self.log}"
        try:
            return httpx.get(f"{self.url}/ping", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def wait(self) -> float:
        """Seconds from sbatch until it was ready."""
        until(self.ready, _START_S)
        return time.monotonic() - self.began

    def end(self) -> None:
        """Whatever it is doing."""
        self.slurm.run("scancel", self.id, check=False)
        self.slurm.ended(self.id)

    def workers(self) -> dict[str, str]:
        """Name → URL of what its gateway knows."""
        return {one["name"]: one["url"] for one in httpx.get(f"{self.admin_url}/status").json()["workers"]}

    def proven(self) -> bool:
        """Whether its gateway knows a pair through which KV came."""
        return any(pair["proven"] for pair in httpx.get(f"{self.admin_url}/status").json()["pairs"])

    def listed(self) -> str:
        """The endpoints file."""
        return (self.folder / "endpoints.json").read_text()

    def leftovers(self) -> list[str]:
        """Processes, known ports and files that this job has on its nodes."""
        ids = {self.id, *(str(int(self.id) + part) for part in range(1, self.slurm.parts(self.id)))}
        found = [line for line in self.slurm.processes() if self.slurm.job_of(line) in ids]
        own = {str(port + n) for port in astuple(Ports().shifted(self.offset)) for n in range(2)}
        found += [port for port in self.slurm.ports() if port.rsplit(":", 1)[1] in own]
        found += [str(path) for one in ids for path in Path("/tmp").glob(f"hyperpd-{one}.*")]
        return found + [str(path) for name in ("endpoints.json*", "stopping") for path in self.folder.glob(name)]

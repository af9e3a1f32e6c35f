"""debootstrap, buildah and podman: a base without a registry, builds on it, containers of the image.

Storage is a folder of its own. Every command runs in its own mount namespace without the cgroup2
leaf: on hosts with both cgroup versions podman 4.3 takes the wrong one and gives up.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "container" / "Dockerfile"
ENGINE = Path(sys.prefix, "lib", f"python3.{sys.version_info.minor}", "site-packages")

_OWN_MOUNTS = ("unshare", "--mount", "--propagation", "private", "sh", "-c")
_WITHOUT_CGROUP2 = 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"'
# What this project asks of a platform, and no more: nothing may be written but /tmp and /dev/shm.
_HARDENED = (
    *("--read-only", "--read-only-tmpfs=false", "--tmpfs", "/tmp:mode=1777", "--shm-size", "2g"),
    *("--cap-drop", "ALL", "--cap-add", "IPC_LOCK", "--network", "host", "--cgroups=disabled"),
)
_PACKAGES = "python3,python3-pip,ca-certificates,libgomp1,libnuma1"  # the last two: the CPU engine


def missing() -> str:
    """Why no image can be built here, or ""."""
    if os.geteuid() != 0:
        return "root is needed"
    if sys.version_info[:2] != (3, 11):
        return "the CPU engine here is not for Debian 12's Python 3.11"
    tools = [name for name in ("debootstrap", "buildah", "podman", "crun", "unshare") if not shutil.which(name)]
    return f"{', '.join(tools)} missing" if tools else ""


class Tools:
    """Builds and runs in `folder`, which holds all that is made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        storage, containers = folder / "storage.conf", folder / "containers.conf"
        storage.write_text(f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/s"\nrunroot = "{folder}/r"\n')
        # podman's own defaults are above what a machine without CAP_SYS_RESOURCE may set.
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        containers.write_text(f'[containers]\ndefault_ulimits = ["nofile={files}:{files}", "nproc=4096:4096"]\n')
        self._env = {**os.environ, "CONTAINERS_STORAGE_CONF": str(storage), "CONTAINERS_CONF": str(containers)}

    def popen(self, *argv: str, **options: Any) -> subprocess.Popen[str]:
        argv = (*_OWN_MOUNTS, _WITHOUT_CGROUP2, "sh", *argv)
        return subprocess.Popen(argv, env=self._env, cwd=ROOT, text=True, **options)

    def run(self, *argv: str, **options: Any) -> tuple[int, str]:
        """Exit code, and standard output and error together."""
        process = self.popen(*argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
        output, _ = process.communicate()
        return process.returncode, output

    def must(self, *argv: str, **options: Any) -> str:
        code, output = self.run(*argv, **options)
        assert code == 0, output
        return output

    def base(self) -> str:
        """Debian 12 with Python and pip."""
        root = self.folder / "root"
        self.must("debootstrap", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", str(root), *_mirror())
        with subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE) as tar:
            self.must("podman", "import", "--quiet", "-", "localhost/base", stdin=tar.stdout)
        shutil.rmtree(root)
        return "localhost/base"

    def wheelhouse(self) -> None:
        """What pip needs inside a build, fetched here, where pip is configured."""
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        wanted = ["hatchling", *project["dependencies"], *project["optional-dependencies"]["gateway"]]
        lock = (ROOT / "container" / "engine-cpu.lock").read_text()
        (self.folder / "constraints.txt").write_text("\n".join(re.findall(r"^[a-z0-9]\S*==[^\s;]+", lock, re.M)))
        pip = (sys.executable, "-m", "pip", "--quiet", "download", "--only-binary=:all:", "--dest", "wheelhouse")
        subprocess.run([*pip, "--constraint", "constraints.txt", *wanted], cwd=self.folder, check=True)
        (self.folder / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /wheelhouse\n")

    def build(self, base: str, *, dockerfile: Path = DOCKERFILE, tag: str = "", **arguments: str) -> tuple[int, str]:
        """Exit code and output of a build of the image on `base`."""
        volumes = {"wheelhouse": "/wheelhouse", "pip.conf": "/etc/pip.conf", "efa": "/efa"}
        return self.run(
            *("buildah", "bud", "--isolation", "chroot", "--file", str(dockerfile)),
            *(f"--build-arg={name}={value}" for name, value in {"BASE": base, **arguments}.items()),
            *(f"--volume={self.folder / a}:{b}:ro" for a, b in volumes.items() if (self.folder / a).exists()),
            f"--volume={ENGINE}:/engine:O",  # as if writable: pip replaces this project in it
            *(("--tag", tag) if tag else ()),
            ".",
        )

    def inspect(self, name: str) -> Any:
        return json.loads(self.must("podman", "inspect", name))[0]

    def shell(self, image: str, *argv: str, user: str = "") -> str:
        """Output of another program than the entrypoint, in a container as every other."""
        as_user = ("--user", user) if user else ()
        return self.must("podman", "run", "--rm", *_HARDENED, *as_user, "--entrypoint", argv[0], image, *argv[1:])


class Container:
    """One container of the image, from start to `stop`. engine: with this machine's CPU engine mounted."""

    def __init__(self, tools: Tools, image: str, name: str, *argv: str, engine: bool = True) -> None:
        self._tools, self.name = tools, name
        self._log = tools.folder / f"{name}.log"
        mounted = ("--volume", f"{ENGINE}:/engine:ro", "--env", "PYTHONPATH=/engine") if engine else ()
        with self._log.open("w") as log:
            self.process = tools.popen(
                *("podman", "run", "--rm", "--name", name, *_HARDENED, *mounted, image, *argv), stdout=log, stderr=log
            )

    def answer(self, url: str, *status: int) -> httpx.Response:
        """The first answer of `url` with one of these statuses."""
        ended = threading.Event()
        threading.Thread(target=lambda: (self.process.wait(), ended.set()), daemon=True).start()
        for _ in range(3000):
            try:
                answer = httpx.get(url)
                if answer.status_code in status:
                    return answer
            except httpx.TransportError:
                pass
            if ended.wait(0.1):
                break
        raise AssertionError(f"{self.name} does not answer {status} at {url}:\n{self.log()}")

    def log(self) -> str:
        return self._log.read_text()

    def first_process(self) -> Path:
        """/proc of the container's process 1, seen from here."""
        return Path("/proc", str(self._tools.inspect(self.name)["State"]["Pid"]))

    def stop(self, within_s: float = 60) -> int:
        """SIGTERM, as a platform sends it; the container's exit code, or -9 when it outlived `within_s` seconds."""
        self.process.send_signal(signal.SIGTERM)  # podman passes it on
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self._tools.run("podman", "rm", "--force", "--time", "0", self.name)
            self.process.wait()
            return -signal.SIGKILL


def _mirror() -> tuple[str, ...]:
    """Where this machine gets Debian 12 from, if it is one; elsewhere debootstrap's own default."""
    listed = ("apt-get", "indextargets", "--format", "$(CREATED_BY) $(CODENAME) $(REPO_URI)")
    lines = subprocess.run(listed, capture_output=True, text=True).stdout.split("\n")
    found = [line.split()[2] for line in lines if line.startswith("Packages bookworm ")]
    return tuple(found[:1])

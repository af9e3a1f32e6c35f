"""Names of images, and the tools that move them: docker, buildah, skopeo."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from hyperpd.errors import CloudError, NotReady, RecipeError

DOCKERFILE = "container/Dockerfile"
_DAEMON_TIMEOUT_S = 15


@dataclass(frozen=True, slots=True)
class Reference:
    """An image's name: `HOST:PORT/PATH`, and a tag, a digest, both or neither."""

    repository: str
    tag: str = ""
    digest: str = ""  # sha256:…

    def __str__(self) -> str:
        return self.repository + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    @property
    def pinned(self) -> str:
        """What can mean one image only, or the tag where the digest is not known."""
        return str(replace(self, tag="") if self.digest else self)


_REFERENCE = re.compile(
    r"(?P<repository>[a-z0-9][a-z0-9.-]*(?::\d+(?=/))?(?:/[a-z0-9][a-z0-9._-]*)*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


def reference(text: str, where: str) -> Reference:
    """`text` as the name of an image. Raises RecipeError."""
    found = _REFERENCE.fullmatch(text)
    if not found:
        raise RecipeError(where, [f"{text!r} is not the name of an image, as in registry.example:5000/ml/hyperpd:1.0"])
    return Reference(**{key: value or "" for key, value in found.groupdict().items()})


class Shell:
    """Runs commands, their output on standard error; dry: notes them only."""

    def __init__(self, dry: bool = False) -> None:
        self.dry = dry
        self.commands: list[str] = []

    def run(self, *argv: str, capture: bool = False) -> str:
        """Standard output if captured. Raises CloudError when the command fails."""
        self.commands.append(shlex.join(argv))
        if self.dry:
            return ""
        ran = subprocess.run(argv, stdout=subprocess.PIPE if capture else sys.stderr, text=True)
        if ran.returncode:
            raise CloudError(f"{self.commands[-1]}\nended with exit code {ran.returncode}; its own words are above")
        return ran.stdout or ""

    def digest(self, *argv: str) -> str:
        """The digest that a command writes to its --digestfile; "" when dry."""
        if self.dry:
            self.run(*argv)
            return ""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "digest"
            self.run(*argv[:2], "--digestfile", str(file), *argv[2:])
            return file.read_text().strip()


class Tool(Protocol):
    """Builds images, and takes them to registries."""

    name: str

    def build(self, shell: Shell, context: Path, tag: str, arguments: Mapping[str, str]) -> None:
        """Build the Dockerfile of `context` as `tag`."""

    def push(self, shell: Shell, tag: str, target: Reference) -> str:
        """Push the local image `tag` to `target`; its digest there."""

    def pull(self, shell: Shell, source: Reference) -> None:
        """Fetch `source` into the local images."""


class Docker:
    """A docker client whose daemon answers."""

    name = "docker"

    def build(self, shell: Shell, context: Path, tag: str, arguments: Mapping[str, str]) -> None:
        # BuildKit: the Dockerfile's mounts need it, and it sends only what is copied. Old clients have to be told.
        shell.run("env", "DOCKER_BUILDKIT=1", "docker", "build", *_build_options(context, tag, arguments))

    def push(self, shell: Shell, tag: str, target: Reference) -> str:
        shell.run("docker", "tag", tag, str(target))
        shell.run("docker", "push", str(target))
        told = shell.run("docker", "inspect", "--format", "{{json .RepoDigests}}", str(target), capture=True)
        digests = [name.removeprefix(target.repository + "@") for name in json.loads(told or "[]")]
        return next((digest for digest in digests if digest.startswith("sha256:")), "")

    def pull(self, shell: Shell, source: Reference) -> None:
        shell.run("docker", "pull", source.pinned)


class Buildah:
    """buildah, which needs no daemon."""

    name = "buildah"

    def build(self, shell: Shell, context: Path, tag: str, arguments: Mapping[str, str]) -> None:
        shell.run("buildah", "bud", *_build_options(context, tag, arguments))

    def push(self, shell: Shell, tag: str, target: Reference) -> str:
        return shell.digest("buildah", "push", tag, f"docker://{target}")

    def pull(self, shell: Shell, source: Reference) -> None:
        shell.run("buildah", "pull", f"docker://{source.pinned}")


def _build_options(context: Path, tag: str, arguments: Mapping[str, str]) -> list[str]:
    given = [part for name, value in arguments.items() for part in ("--build-arg", f"{name}={value}")]
    return ["--file", str(context / DOCKERFILE), *given, "--tag", tag, str(context)]


def tool(name: str | None = None) -> Tool | None:
    """The tool of this name, or the first that is there; None when there is none. Raises NotReady, with a name."""
    for one in (Docker(), Buildah()):
        if name in (None, one.name):
            why = _missing(one.name)
            if not why:
                return one
            if name:
                raise NotReady(why)
    return None


def must(found: Tool | None) -> Tool:
    """`found`, or NotReady."""
    if not found:
        raise NotReady(f"no tool for images: {_missing('docker')}; {_missing('buildah')}")
    return found


def _missing(name: str) -> str:
    """Why a tool cannot be used, or ""."""
    if not shutil.which(name):
        return f"{name} is not installed"
    if name == "docker":
        try:
            asked = ("docker", "version", "--format", "{{.Server.Version}}")
            answers = not subprocess.run(asked, capture_output=True, timeout=_DAEMON_TIMEOUT_S).returncode
        except subprocess.TimeoutExpired:
            answers = False
        return "" if answers else "docker's daemon does not answer (start it, or set DOCKER_HOST)"
    return ""


def push(shell: Shell, by: Tool, tag: str, repository: str) -> str:
    """Push the local image `tag`; `REPOSITORY@sha256:…`, or with its tag when dry. Raises RecipeError, CloudError."""
    local, target = reference(tag, "TAG"), reference(repository, "REPOSITORY")
    if target.digest:
        raise RecipeError(repository, ["a digest is what comes out; give the repository, or repository:tag"])
    target = target if target.tag else replace(target, tag=local.tag or "latest")
    return replace(target, digest=pushed(shell, by, tag, target)).pinned


def pushed(shell: Shell, by: Tool, tag: str, target: Reference) -> str:
    digest = by.push(shell, tag, target)
    if not (digest or shell.dry):
        raise CloudError(f"{by.name} pushed {target} and does not know its digest; ask the registry")
    return digest

"""Which workers there are: fixed ones, of this machine or from settings, those behind DNS names, those of a file."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from hyperpd.environment import Environment
from hyperpd.errors import RecipeError
from hyperpd.placement import Placement, Ports
from hyperpd.recipe import Role
from hyperpd_runtime.gateway import telemetry

log = logging.getLogger("hyperpd.gateway")
_ROLES: tuple[Role, ...] = ("prefill", "decode", "aggregated")
_RESOLVE_EVERY_S = 3.0
_READ_EVERY_S = 0.5  # an endpoints file: a worker that went is in it within a second
_FILE_BYTES = 1 << 20  # llm-d's own limit
ROLE_LABEL = "llm-d.ai/role"
LABELS: Mapping[Role, str] = {"prefill": "prefill", "decode": "decode", "aggregated": "prefill-decode"}  # llm-d's words

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one worker answers."""

    role: Role
    name: str
    url: str
    certified: str = ""  # the name in its certificate, where that is not the address in its url

    @property
    def admin_url(self) -> str:
        """Where its supervisor answers: as far above the worker's port as in every placement."""
        at = urlsplit(self.url)
        port = (at.port or 80) + Ports().worker_admin - Ports().worker_api
        return f"{at.scheme}://{_bracketed(at.hostname or '')}:{port}"


@dataclass(frozen=True, slots=True)
class Name:
    """A DNS name, every address of which is one worker: a headless Service of Kubernetes."""

    role: Role
    host: str
    port: int
    scheme: str = "http"  # https: each worker's certificate is for `host`

    @property
    def every_s(self) -> float:
        return _RESOLVE_EVERY_S

    def __str__(self) -> str:
        return f"dns://{self.host}:{self.port}"

    def endpoint(self, address: str) -> Endpoint:
        """The worker at `address`. Its name is the same however often it comes and goes, and no other's."""
        port = "" if self.port == Ports().worker_api else f":{self.port}"
        certified = self.host if self.scheme == "https" else ""
        url = f"{self.scheme}://{_bracketed(address)}:{self.port}"
        return Endpoint(self.role, f"{self.role}-{address}{port}", url, certified)

    async def find(self, resolve: Resolve) -> tuple[Endpoint, ...]:
        """Its workers now. Raises OSError or ValueError (UnicodeError) when they are not known."""
        return tuple(self.endpoint(address) for address in await resolve(self.host, self.port))


@dataclass(frozen=True, slots=True)
class File:
    """An endpoints file with the fields of llm-d's file discovery, as JSON; its entries of one role are workers.

    Who writes it replaces it atomically, and is believed: prompts go where it says.
    """

    role: Role
    path: Path
    scheme: str = "http"

    @property
    def every_s(self) -> float:
        return _READ_EVERY_S

    def __str__(self) -> str:
        return f"file://{self.path}#{self.role}"

    async def find(self, _: Resolve) -> tuple[Endpoint, ...]:
        """Its workers now. Raises OSError or ValueError when they are not known."""
        return await asyncio.to_thread(self._read)  # a shared folder may hang

    def _read(self) -> tuple[Endpoint, ...]:
        if self.path.stat().st_mode & 0o022:
            raise ValueError("others may write to it, and prompts go where it says; chmod go-w")
        with self.path.open("rb") as file:
            content = file.read(_FILE_BYTES + 1)
        if len(content) > _FILE_BYTES:
            raise ValueError(f"larger than {_FILE_BYTES} bytes")
        return tuple(one for one in endpoints(content, self.scheme) if one.role == self.role)


def endpoints(content: bytes, scheme: str = "http") -> list[Endpoint]:
    """The workers of an endpoints file, which says nothing of their `scheme`; fields nobody here knows are ignored.

    Raises ValueError with what is wrong.
    """
    try:
        document = json.loads(content)
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None
    entries = document.get("endpoints") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError("no list `endpoints`")
    found = [_endpoint(f"endpoints.{index}", entry, scheme) for index, entry in enumerate(entries)]
    for what in ("name", "url"):
        said = [getattr(one, what) for one in found]
        if twice := sorted({one for one in said if said.count(one) > 1}):
            raise ValueError(f"the {what} of more than one worker: {', '.join(twice)}")
    return found


def _endpoint(where: str, entry: Any, scheme: str) -> Endpoint:
    if not isinstance(entry, dict) or not isinstance(labels := entry.get("labels"), dict):
        raise ValueError(f"{where}: no mapping with labels")
    if not isinstance(name := entry.get("name"), str) or not name:
        raise ValueError(f"{where}.name: missing")
    roles = [role for role, label in LABELS.items() if label == labels.get(ROLE_LABEL)]
    if not roles:
        raise ValueError(
            f"{where}.labels: {ROLE_LABEL} is {labels.get(ROLE_LABEL)!r}, not one of {', '.join(LABELS.values())}"
        )
    try:
        address, port = ipaddress.ip_address(str(entry.get("address"))), int(str(entry.get("port")))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if not 0 < port < 1 << 16:
        raise ValueError(f"{where}.port: {port} is none")
    return Endpoint(roles[0], name, f"{scheme}://{_bracketed(str(address))}:{port}")


@dataclass(frozen=True, slots=True)
class Sources:
    """Where a gateway's workers come from: `fixed` ones, and those that are `followed`."""

    fixed: tuple[Endpoint, ...]
    followed: tuple[Name | File, ...] = ()

    @property
    def roles(self) -> set[Role]:
        return {endpoint.role for endpoint in self.fixed} | {source.role for source in self.followed}


def sources(settings: Environment, placement: Placement) -> Sources:
    """The workers of this process, or those that a lone gateway is told of.

    Raises RecipeError when a gateway is told of none, or of one phase only.
    """
    if settings.role != "gateway":
        answering = [worker for worker in placement.workers if not worker.rank]  # other parts of one have no API
        return Sources(tuple(Endpoint(worker.role, worker.name, worker.url) for worker in answering))
    scheme = "https" if settings.workers_ca_file else "http"
    fixed: list[Endpoint] = []
    followed: list[Name | File] = []
    for role in _ROLES:
        for ordinal, url in enumerate(filter(None, getattr(settings, role).split(","))):
            at = urlsplit(url.strip())
            if at.scheme == "dns":
                followed.append(Name(role, at.hostname or "", at.port or 0, scheme))
            elif at.scheme == "file":
                followed.append(File(role, Path(unquote(at.path)), scheme))
            else:
                fixed.append(Endpoint(role, f"{role}-{ordinal}", url.strip().rstrip("/")))
    told = Sources(tuple(fixed), tuple(dict.fromkeys(followed)))
    if told.roles not in ({"prefill", "decode"}, {"aggregated"}):
        raise RecipeError(
            "settings",
            [f"gateway: give HYPERPD_PREFILL and HYPERPD_DECODE, or HYPERPD_AGGREGATED (found {sorted(told.roles)})"],
        )
    return told


async def resolve(host: str, port: int) -> Sequence[str]:
    """All addresses of `host`, IPv4 and IPv6, sorted. Raises OSError or UnicodeError when there are none."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return sorted({str(address[0]) for *_, address in found})


class Discovery:
    """Follows what `sources` name; `update` is told all workers, and why those of a source are not known.

    A source that cannot be used keeps the workers it last had: DNS or a shared folder may fail while they are well.
    """

    def __init__(
        self,
        sources: Sources,
        update: Callable[[Sequence[Endpoint], Mapping[str, str]], None],
        resolve: Resolve = resolve,
    ) -> None:
        self._sources = sources
        self._update = update
        self._resolve = resolve
        self._found: dict[Name | File, tuple[Endpoint, ...]] = dict.fromkeys(sources.followed, ())
        self._problems: dict[Name | File, str] = dict.fromkeys(sources.followed, "not resolved yet")
        self._tell()

    async def watch(self) -> None:
        """Look at every source again and again, for ever (at once done where there is none); one that hangs holds up
        no other."""
        async with asyncio.TaskGroup() as tasks:
            for source in self._sources.followed:
                tasks.create_task(self._follow(source))

    async def _follow(self, source: Name | File) -> None:
        while True:
            await self.look(source)
            await asyncio.sleep(source.every_s)

    async def look(self, source: Name | File) -> None:
        """Look at one source, once."""
        before = self._found[source], self._problems[source]
        try:
            found = await source.find(self._resolve)
        except (OSError, ValueError) as error:
            telemetry.RESOLUTION_FAILURES.labels(str(source)).inc()
            why = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
            self._problems[source] = why
            if why != before[1]:  # said once, however long it lasts
                kept = len(self._found[source])
                log.warning("event=unresolved source=%s keeps_workers=%d why=%r", source, kept, why)
        else:
            self._found[source] = found
            self._problems[source] = ""
            telemetry.RESOLVED.labels(str(source)).set(len(found))
            if before[1]:
                log.info("event=resolved source=%s workers=%d", source, len(found))
        if (self._found[source], self._problems[source]) != before:
            self._tell()

    def _tell(self) -> None:
        found = [*self._sources.fixed, *(endpoint for of in self._found.values() for endpoint in of)]
        self._update(found, {str(source): why for source, why in self._problems.items() if why})


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host

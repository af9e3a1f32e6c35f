"""Which workers there are: fixed ones, of this machine or from settings, and those behind DNS names."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from hyperpd.environment import Environment
from hyperpd.errors import RecipeError
from hyperpd.placement import Placement, Ports
from hyperpd.recipe import Role
from hyperpd_runtime.gateway import telemetry

log = logging.getLogger("hyperpd.gateway")
_ROLES: tuple[Role, ...] = ("prefill", "decode", "aggregated")
_RESOLVE_EVERY_S = 3.0

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one worker answers."""

    role: Role
    name: str
    url: str

    @property
    def admin_url(self) -> str:
        """Where its supervisor answers: as far above the worker's port as in every placement."""
        at = urlsplit(self.url)
        return f"http://{_bracketed(at.hostname or '')}:{(at.port or 80) + Ports().worker_admin - Ports().worker_api}"


@dataclass(frozen=True, slots=True)
class Name:
    """A DNS name, every address of which is one worker: a headless Service of Kubernetes."""

    role: Role
    host: str
    port: int

    def __str__(self) -> str:
        return f"dns://{self.host}:{self.port}"

    def endpoint(self, address: str) -> Endpoint:
        """The worker at `address`. Its name is the same however often it comes and goes, and no other's."""
        port = "" if self.port == Ports().worker_api else f":{self.port}"
        return Endpoint(self.role, f"{self.role}-{address}{port}", f"http://{_bracketed(address)}:{self.port}")


@dataclass(frozen=True, slots=True)
class Sources:
    """Where a gateway's workers come from."""

    fixed: tuple[Endpoint, ...]
    names: tuple[Name, ...] = ()

    @property
    def roles(self) -> set[Role]:
        return {endpoint.role for endpoint in self.fixed} | {name.role for name in self.names}


def sources(settings: Environment, placement: Placement) -> Sources:
    """The workers of this process, or those that a lone gateway is told of.

    Raises RecipeError when a gateway is told of none, or of one phase only.
    """
    if settings.role != "gateway":
        answering = [worker for worker in placement.workers if not worker.rank]  # other parts of one have no API
        return Sources(tuple(Endpoint(worker.role, worker.name, worker.url) for worker in answering))
    fixed: list[Endpoint] = []
    names: list[Name] = []
    for role in _ROLES:
        for ordinal, url in enumerate(filter(None, getattr(settings, role).split(","))):
            at = urlsplit(url.strip())
            if at.scheme == "dns":
                names.append(Name(role, at.hostname or "", at.port or 0))
            else:
                fixed.append(Endpoint(role, f"{role}-{ordinal}", url.strip().rstrip("/")))
    told = Sources(tuple(fixed), tuple(dict.fromkeys(names)))
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
    """Follows the names of `sources`; `update` is told all workers, and why a name is not resolved.

    A name that cannot be resolved keeps the workers it last had: DNS may fail while they are well.
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
        self._found: dict[Name, tuple[Endpoint, ...]] = dict.fromkeys(sources.names, ())
        self._problems: dict[Name, str] = dict.fromkeys(sources.names, "not resolved yet")
        self._tell()

    async def watch(self) -> None:
        """Resolve every name again and again, for ever (at once done where there is none); one that hangs holds up
        no other."""
        async with asyncio.TaskGroup() as tasks:
            for name in self._sources.names:
                tasks.create_task(self._follow(name))

    async def _follow(self, name: Name) -> None:
        while True:
            await self.look(name)
            await asyncio.sleep(_RESOLVE_EVERY_S)

    async def look(self, name: Name) -> None:
        """Resolve one name, once."""
        before = self._found[name], self._problems[name]
        try:
            addresses = await self._resolve(name.host, name.port)
        except (OSError, UnicodeError) as error:
            telemetry.RESOLUTION_FAILURES.labels(str(name)).inc()
            why = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
            self._problems[name] = why
            if why != before[1]:  # said once, however long it lasts
                kept = len(self._found[name])
                log.warning("event=unresolved source=%s keeps_workers=%d why=%r", name, kept, why)
        else:
            self._found[name] = tuple(name.endpoint(address) for address in addresses)
            self._problems[name] = ""
            telemetry.RESOLVED.labels(str(name)).set(len(addresses))
            if before[1]:
                log.info("event=resolved source=%s workers=%d", name, len(addresses))
        if (self._found[name], self._problems[name]) != before:
            self._tell()

    def _tell(self) -> None:
        found = [*self._sources.fixed, *(endpoint for of in self._found.values() for endpoint in of)]
        self._update(found, {str(name): why for name, why in self._problems.items() if why})


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host

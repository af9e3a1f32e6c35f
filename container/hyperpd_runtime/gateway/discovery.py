"""Which workers there are. Static: from the placement of this machine, or from settings."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from hyperpd.environment import Environment
from hyperpd.errors import RecipeError
from hyperpd.placement import Placement, Ports
from hyperpd.recipe import Role

_ROLES: tuple[Role, ...] = ("prefill", "decode", "aggregated")


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
        return f"http://{at.hostname}:{(at.port or 80) + Ports().worker_admin - Ports().worker_api}"


def static(settings: Environment, placement: Placement) -> tuple[Endpoint, ...]:
    """The workers of this process, or those that a lone gateway is told of.

    Raises RecipeError when a gateway is told of none, or of one phase only.
    """
    if settings.role != "gateway":
        return tuple(Endpoint(worker.role, worker.name, worker.url) for worker in placement.workers)
    found = tuple(
        Endpoint(role, f"{role}-{ordinal}", url.strip().rstrip("/"))
        for role in _ROLES
        for ordinal, url in enumerate(filter(None, getattr(settings, role).split(",")))
    )
    roles = {endpoint.role for endpoint in found}
    if roles not in ({"prefill", "decode"}, {"aggregated"}):
        raise RecipeError(
            "settings",
            [f"gateway: give HYPERPD_PREFILL and HYPERPD_DECODE, or HYPERPD_AGGREGATED (found {sorted(roles)})"],
        )
    return found

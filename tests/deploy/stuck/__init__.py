"""Deployments that do not get on: the table, by subject."""

from tests.deploy.stuck import controllers, ends, places, pulls, starts, unmade
from tests.deploy.stuck.case import Case

CASES: tuple[Case, ...] = (
    *pulls.PULLS,
    *places.PLACES,
    *unmade.UNMADE,
    *starts.STARTS,
    *ends.ENDS,
    *ends.UNREADY,
    *controllers.CONTROLLERS,
)

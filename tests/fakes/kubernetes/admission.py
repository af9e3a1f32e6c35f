"""Admission: what a server refuses of an object before it keeps it.

Schemas are those of tests/deploy/schema.py; bounds.py has what they do not say. Whatever they refuse is 422 Invalid
here; a real server answers 400 or 500 for some unknown fields, by how they are sent, and drops them where nobody asked
for strictness.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.deploy import schema as strict
from tests.fakes.kubernetes import bounds
from tests.fakes.kubernetes.refusal import Object, Refused, forbidden, invalid
from tests.fakes.kubernetes.resources import Place
from tests.fakes.kubernetes.state import copied

Hook = Callable[[str, Place, Object], str | Refused | None]


@dataclass(slots=True)
class Admission:
    """webhooks: name → (verb, place, object) → why it is denied, the answer itself (`unanswered`, `unexplained`), or
    None."""

    schemas: bool = True
    webhooks: dict[str, Hook] = field(default_factory=dict)

    def check(self, verb: str, at: Place, new: Object, old: Object | None) -> None:
        """Raises Refused for what is not to be kept."""
        what = f'{at.resource.qualified_kind} "{new["metadata"]["name"]}"'
        for name, hook in self.webhooks.items():
            if why := hook(verb, at, copied(new)):
                raise (
                    why
                    if isinstance(why, Refused)
                    else forbidden(f'admission webhook "{name}" denied the request: {why}')
                )
        if self.schemas and (problems := strict.problems(_held(at, new))):
            raise invalid(what, problems)
        if found := bounds.problems(new, old):
            raise invalid(what, found)


def _held(at: Place, body: Object) -> Object:
    """What the schemas speak of: the excerpts of custom resources have no status."""
    return body if "." not in at.resource.group else {key: value for key, value in body.items() if key != "status"}

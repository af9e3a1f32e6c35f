"""Access: who a bearer token is (401), and what nobody may do (403).

The server's own answer to "who am I" (SelfSubjectReview) and "may I" (SelfSubjectAccessReview) follows from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from tests.fakes.kubernetes.refusal import Object, Refused, bad, forbidden
from tests.fakes.kubernetes.resources import SERVED, Place

_REVIEWS = {
    "/apis/authentication.k8s.io/v1/selfsubjectreviews": ("authentication.k8s.io/v1", "SelfSubjectReview"),
    "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews": ("authorization.k8s.io/v1", "SelfSubjectAccessReview"),
}
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(slots=True)
class Access:
    """tokens: token → user; None asks for none. denied: (verb, resource), "*" for any: ("patch", "deployments.apps"),
    ("get", "pods/log")."""

    tokens: dict[str, str] | None = None
    denied: set[tuple[str, str]] = field(default_factory=set)

    def user(self, authorization: str | None) -> str:
        """Who sends this header. Raises Refused (401)."""
        if self.tokens is None:
            return "stand-in"
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or token not in self.tokens:
            raise Refused(HTTPStatus.UNAUTHORIZED, "Unauthorized", "Unauthorized")
        return self.tokens[token]

    def check(self, user: str, verb: str, at: Place) -> None:
        """Raises Refused (403) in the server's words."""
        plural = f"{at.resource.plural}/{at.subresource}" if at.subresource else at.resource.plural
        if not self._denies(verb, f"{plural}.{at.resource.group}".rstrip(".")):
            return
        what = str(at.object) if at.name else at.resource.qualified
        where = f'in the namespace "{at.namespace}"' if at.namespace else "at the cluster scope"
        group = f'in API group "{at.resource.group}" {where}'
        raise forbidden(f'{what} is forbidden: User "{user}" cannot {verb} resource "{plural}" {group}')

    def review(self, path: str, user: str, read: Callable[[], Object]) -> Object | None:
        """The answer to a question about oneself, None where the path asks none."""
        if path not in _REVIEWS:
            return None
        body = read()
        if (body.get("apiVersion"), body.get("kind")) != _REVIEWS[path]:
            raise bad(f"the object is {body.get('kind')} in {body.get('apiVersion')}, the path is of {_REVIEWS[path]}")
        if body["kind"] == "SelfSubjectReview":
            return {**body, "status": {"userInfo": {"username": user, "groups": ["system:authenticated"]}}}
        asked = (body.get("spec") or {}).get("resourceAttributes")
        if not asked:
            raise bad("spec.resourceAttributes: Required value")
        served = any((one.plural, one.group) == (asked["resource"], asked.get("group", "")) for one in SERVED)
        plural = "/".join(filter(None, (asked["resource"], asked.get("subresource"))))
        allowed = served and not self._denies(asked["verb"], f"{plural}.{asked.get('group', '')}".rstrip("."))
        return {**body, "status": {"allowed": allowed}}

    def _denies(self, verb: str, resource: str) -> bool:
        return any(what in self.denied for what in ((verb, resource), (verb, "*"), ("*", resource), ("*", "*")))


def verb_of(method: str, at: Place, query: Mapping[str, str]) -> str:
    """What a request is to RBAC."""
    if method == "GET":
        return "get" if at.name else "watch" if query.get("watch") in ("1", "true") else "list"
    return "deletecollection" if method == "DELETE" and not at.name else _VERBS[method]

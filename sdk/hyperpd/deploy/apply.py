"""Api: what hyperpd asks of a Kubernetes API server. The only file that talks to one.

Objects are plain mappings, so that nothing a server knows and hyperpd does not is lost. lightkube reads kubeconfigs
and logs in (`connect.py`); every refusal becomes a CloudError with operation, code and cause.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NoReturn

from hyperpd.deploy.kinds import KINDS
from hyperpd.errors import CloudError, HyperpdError

Object = dict[str, Any]
Objects = list[Object]  # beside a method named list, its name is not to be had

MANAGER = "hyperpd"  # owner of the fields that hyperpd applies
NOT_SERVED = "NotServed"  # CloudError.code where the cluster has no such kind: its CRD is not installed
_TIMEOUT_S = 30.0
_ANSWER_S = 120.0  # of a model that has just started
_TRIES = 5  # of a request that the server throttles
_JSON, _MERGE, _APPLY = "application/json", "application/merge-patch+json", "application/apply-patch+yaml"


class Api:
    """One API server. client: an HTTP client of lightkube's library with address, trust and login in it."""

    def __init__(self, client: Any) -> None:
        self._client = client

    @property
    def server(self) -> str:
        """Its address."""
        return str(self._client.base_url).rstrip("/")

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Api:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, kind: str, namespace: str | None, name: str) -> Object | None:
        """One object, or None. Raises CloudError; NOT_SERVED where the cluster does not know the kind."""
        try:
            found: Object = self._object("GET", f"get {_said(kind, namespace, name)}", _path(kind, namespace, name))
        except CloudError as error:
            if error.code == "NotFound":
                return None
            raise
        return found

    def list(self, kind: str, namespace: str | None = None, labels: Mapping[str, str] | None = None) -> Objects:
        """Every object of a kind that has these labels ("" asks for the label alone); of all namespaces where none is
        given."""
        return self.listed(kind, namespace, labels)[0]

    def listed(
        self, kind: str, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> tuple[Objects, str]:
        """What `list` finds, and the version from which `watch` goes on."""
        operation = f"list {_said(kind, namespace)}"
        parameters = _selector(labels) | {"limit": "500"}
        found: Objects = []
        while True:
            page = self._object("GET", operation, _path(kind, namespace), parameters)
            head = {"apiVersion": KINDS[kind].api_version, "kind": kind}  # servers leave it out of lists
            found += [head | item for item in page["items"]]
            meta = page.get("metadata") or {}
            if not meta.get("continue"):
                return found, str(meta.get("resourceVersion", ""))
            parameters["continue"] = meta["continue"]

    def apply(self, objects: Iterable[Object], *, force: bool = False, dry_run: bool = False) -> Objects:
        """Server-side apply, in this order; what the server has then. Ends at the first refusal.

        force: take fields over that others own. dry_run: the server checks and answers, and keeps nothing.
        """
        answers = []
        for body in objects:
            meta = body["metadata"]
            where = (body["kind"], meta.get("namespace"), meta["name"])
            parameters = {"fieldManager": MANAGER} | _dry(dry_run) | ({"force": "true"} if force else {})
            path = _path(*where, api_version=body["apiVersion"])
            answers.append(self._object("PATCH", f"apply {_said(*where)}", path, parameters, body, _APPLY))
        return answers

    def create(self, body: Object) -> Object:
        """A new object. Raises CloudError with the code AlreadyExists where there is one of this name."""
        where = (body["kind"], body["metadata"].get("namespace"))
        operation = f"create {_said(*where, body['metadata']['name'])}"
        return self._object("POST", operation, _path(*where), {"fieldManager": MANAGER}, body)

    def patch(self, kind: str, namespace: str | None, name: str, change: Object) -> Object:
        """Merge `change` into an object; a null removes a field."""
        operation, parameters = f"patch {_said(kind, namespace, name)}", {"fieldManager": MANAGER}
        return self._object("PATCH", operation, _path(kind, namespace, name), parameters, change, _MERGE)

    def patch_scale(self, kind: str, namespace: str, name: str, replicas: int) -> Object:
        """Set how many replicas an object has, by its subresource."""
        path = _path(kind, namespace, name) + "/scale"
        body = {"spec": {"replicas": replicas}}
        operation = f"scale {_said(kind, namespace, name)}"
        return self._object("PATCH", operation, path, {"fieldManager": MANAGER}, body, _MERGE)

    def delete(self, kind: str, namespace: str | None, name: str, *, uid: str | None = None) -> bool:
        """Delete an object, and in the background what belongs to it; False where it is gone already.

        uid: only this one, not another that has its name by now.
        """
        body: Object = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        if uid:
            body["preconditions"] = {"uid": uid}
        try:
            self._object("DELETE", f"delete {_said(kind, namespace, name)}", _path(kind, namespace, name), {}, body)
        except CloudError as error:
            if error.code == "NotFound":
                return False
            raise
        return True

    def evict(self, namespace: str, pod: str) -> bool:
        """Ask that a pod leaves its node; False where it is gone already.

        Raises CloudError with the code TooManyRequests while a disruption budget forbids it.
        """
        meta = {"name": pod, "namespace": namespace}
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": meta}
        try:
            path = _path("Pod", namespace, pod) + "/eviction"
            self._object("POST", f"evict {_said('Pod', namespace, pod)}", path, {}, body, tries=1)
        except CloudError as error:
            if error.code == "NotFound":
                return False
            raise
        return True

    def logs(
        self,
        namespace: str,
        pod: str,
        container: str | None = None,
        *,
        previous: bool = False,
        tail: int | None = None,
        follow: bool = False,
    ) -> Iterator[str]:
        """Lines of a container's log. previous: of the run before the last restart. follow: on, until it ends."""
        parameters = {"container": container, "tailLines": str(tail) if tail is not None else None}
        parameters |= {"previous": "true" if previous else None, "follow": "true" if follow else None}
        path, said = _path("Pod", namespace, pod) + "/log", _said("Pod", namespace, pod)
        yield from self._lines(f"read the log of {said}", path, parameters, endless=follow)

    def events(self, namespace: str) -> Objects:
        """Events of a namespace, the oldest first."""
        found = self.list("Event", namespace)
        return sorted(
            found, key=lambda e: e.get("lastTimestamp") or e.get("eventTime") or e.get("firstTimestamp") or ""
        )

    def watch(
        self,
        kind: str,
        namespace: str | None,
        version: str,
        *,
        labels: Mapping[str, str] | None = None,
        timeout_s: int = 300,
    ) -> Iterator[tuple[str, Object]]:
        """What happens after `version` ("ADDED", "MODIFIED", "DELETED") until the server ends it after `timeout_s`.

        Raises CloudError with the code Expired where the server does not remember that version: list again.
        """
        operation = f"watch {_said(kind, namespace)}"
        parameters = _selector(labels) | {"watch": "1", "resourceVersion": version, "timeoutSeconds": str(timeout_s)}
        for line in self._lines(operation, _path(kind, namespace), parameters, endless=True):
            if not line:
                continue
            happened = json.loads(line)
            if happened["type"] == "ERROR":
                _refuse(operation, int(happened["object"].get("code", 0)), happened["object"])
            yield happened["type"], happened["object"]

    def ask_service(
        self,
        scheme: str,
        namespace: str,
        service: str,
        port: int,
        path: str,
        body: bytes,
        *,
        key: str | None = None,
    ) -> tuple[int, bytes]:
        """POST JSON to a Service through the API server: (HTTP status, content). scheme: http, or https, by which the
        server verifies nothing. key: of the Service's own, sent in x-api-key, since the server uses up Authorization.
        """
        at = f"/api/v1/namespaces/{namespace}/services/{scheme}:{service}:{port}/proxy{path}"
        operation, headers = f"ask Service {service} in {namespace}", {"Content-Type": _JSON}
        if key:
            headers["x-api-key"] = key
        answer = self._send("POST", operation, at, {}, body, headers, tries=1, timeout_s=_ANSWER_S)
        return int(answer.status_code), bytes(answer.content)

    def caller(self) -> str:
        """Who this is to the server; empty where it does not say (before Kubernetes 1.28)."""
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        try:
            answer = self._object("POST", "ask who I am", path, {}, body)
        except CloudError as error:
            if error.code in ("NotFound", NOT_SERVED, "Forbidden"):
                return ""
            raise
        return str(((answer.get("status") or {}).get("userInfo") or {}).get("username", ""))

    def _object(
        self,
        method: str,
        operation: str,
        path: str,
        parameters: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = _JSON,
        tries: int = _TRIES,
    ) -> Object:
        content = json.dumps(body).encode() if body is not None else None
        answer = self._send(method, operation, path, parameters or {}, content, {"Content-Type": content_type}, tries)
        if answer.status_code >= 400:
            _refuse(operation, answer.status_code, _status(answer.content))
        found: Object = answer.json()
        return found

    def _send(
        self,
        method: str,
        operation: str,
        path: str,
        parameters: Mapping[str, str],
        content: bytes | None,
        headers: Mapping[str, str],
        tries: int = _TRIES,
        timeout_s: float = _TIMEOUT_S,
    ) -> Any:
        for left in reversed(range(tries)):
            with _reaching(operation):
                answer = self._client.request(
                    method, path, params=dict(parameters), content=content, headers=dict(headers), timeout=timeout_s
                )
            if answer.status_code != 429 or not left or "Retry-After" not in answer.headers:
                return answer
            time.sleep(float(answer.headers["Retry-After"]))
        raise AssertionError("tries is at least 1")

    def _lines(
        self, operation: str, path: str, parameters: Mapping[str, str | None], *, endless: bool
    ) -> Iterator[str]:
        import httpx2

        given = {key: value for key, value in parameters.items() if value is not None}
        timeout = httpx2.Timeout(_TIMEOUT_S, read=None if endless else _TIMEOUT_S)
        with contextlib.ExitStack() as opened:
            with _reaching(operation):
                answer = opened.enter_context(self._client.stream("GET", path, params=given, timeout=timeout))
                refusal = answer.read() if answer.status_code >= 400 else None
            if refusal is not None:
                _refuse(operation, answer.status_code, _status(refusal))
            try:
                yield from answer.iter_lines()
            except httpx2.HTTPError as error:
                raise _unreachable(operation, error) from None


def _path(kind: str, namespace: str | None, name: str | None = None, *, api_version: str | None = None) -> str:
    known = KINDS[kind]
    version = api_version or known.api_version
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    room = f"/namespaces/{namespace}" if known.namespaced and namespace else ""
    return f"{root}{room}/{known.plural}" + (f"/{name}" if name else "")


def _said(kind: str, namespace: str | None, name: str | None = None) -> str:
    return " ".join(filter(None, (kind, name, f"in {namespace}" if namespace else "")))


def _selector(labels: Mapping[str, str] | None) -> dict[str, str]:
    chosen = ",".join(f"{key}={value}" if value else key for key, value in (labels or {}).items())
    return {"labelSelector": chosen} if chosen else {}


def _dry(dry_run: bool) -> dict[str, str]:
    return {"dryRun": "All"} if dry_run else {}


def _status(content: bytes) -> Object:
    """The server's Status; a proxy in between may answer with anything."""
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"message": content.decode(errors="replace").strip()[:500]}


def _refuse(operation: str, status: int, said: Object) -> NoReturn:
    message = str(said.get("message") or f"HTTP {status}")
    code = str(said.get("reason") or f"HTTP{status}")
    if status == 404 and ("could not find the requested resource" in message or "page not found" in message):
        code = NOT_SERVED
    elif status == 410:
        code = "Expired"
    causes = [
        f"  - {cause.get('field') or cause.get('reason')}: {cause.get('message')}"
        for cause in (said.get("details") or {}).get("causes") or ()
        if cause.get("message") and cause["message"] not in message
    ]
    text = "\n".join([f"{operation}: {code}: {message}", *causes])
    raise CloudError(text + _hint(status, code, message), operation=operation, code=code)


def _hint(status: int, code: str, message: str) -> str:
    if status == 401:
        return "\nThe cluster does not know you: log in again, and see that your role has an EKS access entry"
    if status == 403 and " cannot " in message:  # else a policy of the cluster's, which says so itself
        return "\nYour user lacks this right in the cluster: its administrator gives it, by a role or an access policy"
    if code == NOT_SERVED:
        return "\nThe cluster has no such kind: its controller (LeaderWorkerSet, KEDA, operator …) is not installed"
    return ""


@contextlib.contextmanager
def _reaching(operation: str) -> Iterator[None]:
    """One request on its way: it logs in first, which may run the program that a kubeconfig names."""
    import httpx2

    try:
        yield
    except httpx2.HTTPError as error:
        raise _unreachable(operation, error) from None
    except HyperpdError:
        raise
    except Exception as error:  # lightkube's own, or what running a program, and reading what it prints, ends in
        said = f"{operation}: the kubeconfig's login failed: {type(error).__name__}: {error}"
        hint = "Log in again (aws sso login), and see that its program is installed; --cluster NAME needs none"
        raise CloudError(f"{said}\n{hint}", operation=operation, code="Login") from None


def _unreachable(operation: str, error: Exception) -> CloudError:
    said = f"{operation}: {type(error).__name__}: {error}"
    hint = "The API server does not answer: is its endpoint public, or are you in its network?"
    return CloudError(f"{said}\n{hint}", operation=operation, code=type(error).__name__)

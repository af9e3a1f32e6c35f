"""Waiting until a deployment serves: its workers, its gateway, and one real request. What holds it up is explained."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from hyperpd.deploy import stuck
from hyperpd.deploy.apply import NOT_SERVED, Api, Objects
from hyperpd.deploy.difference import ref
from hyperpd.deploy.parts import WORKLOADS, Part, part
from hyperpd.deploy.progress import Seen, Step, Tell, silent
from hyperpd.deploy.revision import Revision
from hyperpd.deploy.wanted import Object
from hyperpd.errors import CloudError, NotReady

POLL_S = 5.0
_EXPLAIN_EVERY_S = 60.0
_LOG_LINES = 20
_ASK_S = 180.0  # for the first answer, once all is ready
_AGAIN = (404, 429, 500, 502, 503, 504)  # of a gateway, or of the API server before it, that was ready a moment ago
_CHATS = "/v1/chat/completions"
# What controllers make of the objects; read to explain, and only where the caller may.
_MADE = ("ReplicaSet", "StatefulSet", "HorizontalPodAutoscaler", "PersistentVolumeClaim", "Workload")

# (endpoint, body) → answer, by SageMaker's InvokeEndpoint
AskEndpoint = Callable[[str, bytes], bytes]


@dataclass(frozen=True, slots=True)
class Way:
    """How a deployment is asked. service: (scheme, namespace, name, port) of the gateway; endpoint: at SageMaker."""

    service: tuple[str, str, str, int] | None
    endpoint: str | None
    clients: str = ""  # the only namespace that may call the gateway; empty: everybody

    @property
    def url(self) -> str | None:
        """Inside the cluster."""
        return "{0}://{2}.{1}.svc.cluster.local:{3}".format(*self.service) if self.service else None

    def forwarded(self, question: str = "--chat Hello", kubectl: str = "kubectl") -> str | None:
        """What to type for a request where only kubectl reaches the gateway. question: words for `hyperpd invoke`."""
        if not self.service:
            return None
        scheme, namespace, name, port = self.service
        forward = f"{kubectl} --namespace {namespace} port-forward service/{name} {port}"
        if scheme == "https":  # localhost is what its certificate can name
            return f"{forward} & SSL_CERT_FILE=ca.crt hyperpd invoke --url https://localhost:{port} {question}"
        return f"{forward} & hyperpd invoke --url http://127.0.0.1:{port} {question}"


def way(revision: Revision) -> Way:
    """How the objects of a revision are asked."""
    of_kind = [(ref(one), one) for one in revision.objects]
    found = next((one for at, one in of_kind if (at.kind, at.name) == ("Service", "gateway")), None)
    endpoints = [one["spec"].get("endpointName") for at, one in of_kind if at.kind == "InferenceEndpointConfig"]
    service = None
    if found:
        port = found["spec"]["ports"][0]
        service = (port.get("appProtocol", "http"), found["metadata"]["namespace"], "gateway", port["port"])
    given = dict(setting.split("=", 1) for setting in revision.settings)
    clients = next((value for key, value in given.items() if key.strip().replace("-", "_") == "clients_namespace"), "")
    return Way(service, endpoints[0] if endpoints else None, clients)


def parts(api: Api, revision: Revision) -> tuple[Part, ...]:
    """Every workload of a revision as it is now. Raises CloudError."""
    return tuple(part(at, api.get(*at)) for at in map(ref, revision.objects) if at.kind in WORKLOADS)


def causes(api: Api, revision: Revision) -> list[str]:
    """What holds a deployment up, as the cluster tells it, in lines; empty where it tells nothing."""
    rooms = [one["metadata"]["name"] for one in revision.objects if one["kind"] == "Namespace"]
    live = [found for at in map(ref, revision.objects) if at.kind in WORKLOADS and (found := api.get(*at))]
    objects = live + [one for room in rooms for kind in _MADE for one in _listed(api, kind, room)]
    seen = stuck.Seen(
        objects=objects,
        pods=[one for room in rooms for one in _listed(api, "Pod", room)],
        events=[one for room in rooms for one in _listed(api, "Event", room)],
        nodes=_listed(api, "Node", None),
    )

    def last_lines(namespace: str, pod: str, container: str, previous: bool) -> list[str]:
        return list(api.logs(namespace, pod, container, previous=previous, tail=_LOG_LINES))

    return [line for cause in stuck.causes(seen, last_lines) for line in cause.lines()]


def _listed(api: Api, kind: str, namespace: str | None) -> Objects:
    try:
        return api.list(kind, namespace)
    except CloudError as error:
        if error.code in (NOT_SERVED, "Forbidden"):  # it explains less, which is better than nothing
            return []
        raise


@dataclass
class Wait:
    """One wait. question: the body of the request; keyed: whether the gateway asks for an API key; key: that key, None
    where it is not at hand; ask_endpoint: None where SageMaker cannot be asked."""

    api: Api
    revision: Revision
    question: str
    keyed: bool = False
    key: str | None = field(default=None, repr=False)
    tell: Tell = silent
    timeout_s: float = 3600
    poll_s: float = POLL_S
    ask_endpoint: AskEndpoint | None = None
    _began_s: float = field(init=False)

    def __post_init__(self) -> None:
        self._began_s = time.monotonic()

    def done(self) -> None:
        """Until all of it is ready and has answered. Raises NotReady with the causes, CloudError."""
        line, told, explained_s = "", set[str](), self._began_s
        while True:
            found = parts(self.api, self.revision)
            seen = Seen(found, self._elapsed_s)
            if seen.line() != line:
                line = seen.line()
                self.tell(seen)
            if all(one.good for one in found):
                break
            if failed := [one for one in found if one.failed]:
                raise self._not_ready(f"failed: {', '.join(map(str, failed))}")
            if time.monotonic() - explained_s >= _EXPLAIN_EVERY_S:
                explained_s = time.monotonic()
                for cause in causes(self.api, self.revision):
                    if cause not in told:
                        told.add(cause)
                        self.tell(Step(cause))
            self._pause(line)
        self._ask()

    def _ask(self) -> None:
        """One real request."""
        asked = way(self.revision)
        if asked.service and asked.clients:
            self.tell(Step(f"no request was made: only pods of {asked.clients} may call {asked.url}"))
        elif asked.service:
            self._ask_gateway(*asked.service)
        elif asked.endpoint and self.ask_endpoint:
            self._ask_sagemaker(asked.endpoint, self.ask_endpoint)
        else:
            self.tell(Step("no request was made: it has no address that can be asked from here"))

    def _ask_sagemaker(self, endpoint: str, ask: AskEndpoint) -> None:
        try:
            content = ask(endpoint, self.question.encode())
        except CloudError as error:
            if "AccessDenied" not in error.code:
                raise
            said = f"no request was made: endpoint {endpoint} is there, and AWS does not let you ask it: {error}"
            self.tell(Step(f"{said}; for this action: hyperpd iam invoke --endpoint {endpoint}"))
            return
        if not _answered(content):
            raise NotReady(f"endpoint {endpoint} answers with no text: {_start(content)}")
        self.tell(Step(f"endpoint {endpoint} has answered a request"))

    def _ask_gateway(self, scheme: str, namespace: str, name: str, port: int) -> None:
        began_s = time.monotonic()
        while True:
            status, content = self.api.ask_service(
                scheme, namespace, name, port, _CHATS, self.question.encode(), key=self.key
            )
            if status == 200 and _answered(content):
                self.tell(Step("the gateway has answered a request"))
                return
            said = f"the gateway answers a request with {status}: {_start(content)}"
            if status == 401 and self.key:
                raise NotReady(
                    f"{said}\nSee that its key file, the Secret of keys_secret, has the SHA-256 of this key, and that"
                    " its image takes keys in x-api-key: older ones read Authorization, which the API server uses up"
                )
            if status == 401 and self.keyed:
                self.tell(Step("the gateway asks for an API key: no request was made; try again with --key-file FILE"))
                return
            if status == 403 and (why := _no_right(content)):
                key = " --key-file FILE" if self.keyed else ""
                way_round = way(self.revision).forwarded(f"--chat Hello{key}")
                said = f"no request was made: the API server does not let you through to the gateway: {why}"
                self.tell(Step(f"{said}\nask it by a way of your own, with the same --context: {way_round}"))
                return
            if status not in _AGAIN:
                raise NotReady(said)
            if b"trying to reach service" in content and time.monotonic() - began_s >= _ASK_S:
                raise NotReady(
                    f"all is ready, but the API server does not reach it: {said}\nThe machines' security group has to"
                    f" let the control plane in at port {port}; to ask without it:"
                    f" {way(self.revision).forwarded()}"
                )
            self._pause(said)

    def _pause(self, last: str) -> None:
        if self._elapsed_s >= self.timeout_s:
            raise self._not_ready(f"not ready within {self.timeout_s:.0f} s: {last}")
        time.sleep(self.poll_s)

    def _not_ready(self, said: str) -> NotReady:
        name = self.revision.name
        why = causes(self.api, self.revision) or ["the cluster names no cause"]
        ways = f"deploy again to go on waiting, or look with hyperpd status {name}"
        after = f"nothing was taken back: {ways}, with the same --cluster or --context"
        return NotReady("\n".join([f"{name}: {said}", *(f"  {line}" for line in why), after]))

    @property
    def _elapsed_s(self) -> float:
        return time.monotonic() - self._began_s


def _answered(content: bytes) -> bool:
    try:
        answer: Object = json.loads(content)
        return bool(answer["choices"])
    except (ValueError, KeyError, TypeError):
        return False


def _no_right(content: bytes) -> str:
    """Why the API server refuses to pass a request on; empty where what it would pass it to has answered."""
    try:
        answer: Object = json.loads(content)
        return str(answer["message"]) if answer["kind"] == "Status" else ""
    except (ValueError, KeyError, TypeError):
        return ""


def _start(content: bytes) -> str:
    return " ".join(content.decode(errors="replace").split())[:300]

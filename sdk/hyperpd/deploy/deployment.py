"""Deployment: a recipe that runs in a cluster; deploy() makes one.

What is there is what the cluster says; nothing is kept on this machine. A run that was cut off is simply run again.
"""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hyperpd import api_key
from hyperpd import recipe as recipes
from hyperpd.cluster.aws import Aws
from hyperpd.deploy import connect, logs, ready, removal, rollout
from hyperpd.deploy import revision as revisions
from hyperpd.deploy.apply import Api
from hyperpd.deploy.logs import Line
from hyperpd.deploy.parts import Part
from hyperpd.deploy.progress import Step, Tell, silent
from hyperpd.deploy.removal import Removal
from hyperpd.deploy.revision import Revision
from hyperpd.deploy.rollout import Plan
from hyperpd.deploy.wanted import Wanted, counts, want
from hyperpd.errors import RecipeError
from hyperpd.recipe import RecipeFile

TARGET = "kubernetes"


@dataclass(frozen=True, slots=True)
class Place:
    """Where to deploy: a HyperPod cluster by name, or a context of a kubeconfig."""

    cluster: str | None = None
    region: str | None = None
    context: str | None = None
    kubeconfig: Path | None = None

    def connect(self) -> Api:
        """Raises RecipeError, CloudError."""
        if self.cluster:
            if self.context or self.kubeconfig:
                raise RecipeError("where to deploy", ["give --cluster, or --context and --kubeconfig, not both"])
            return connect.hyperpod(self.cluster, self.region)
        return connect.kubeconfig(self.context, self.kubeconfig)


@dataclass(frozen=True, slots=True)
class Status:
    """A deployment as it is now. causes: why it is not ready, in lines."""

    revision: Revision
    parts: tuple[Part, ...]
    url: str | None
    endpoint: str | None
    causes: tuple[str, ...]

    @property
    def ready(self) -> bool:
        return self.revision.whole and all(one.good for one in self.parts)


class Deployment:
    """What runs by one revision, and those before it. aws: for a SageMaker endpoint's requests; default: boto3's own
    account and Region."""

    def __init__(self, api: Api, revision: Revision, *, aws: Aws | None = None) -> None:
        self.api, self.revision, self.aws = api, revision, aws or Aws()

    def close(self) -> None:
        """Close the connection."""
        self.api.close()

    def __enter__(self) -> Deployment:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @classmethod
    def find(cls, api: Api, name: str) -> Deployment:
        """By its recipe's name, or its namespace. Raises RecipeError where there is none, CloudError."""
        return cls(api, revisions.find(api, name)[-1])

    @property
    def name(self) -> str:
        return self.revision.name

    @property
    def url(self) -> str | None:
        """The gateway's, inside the cluster."""
        return ready.way(self.revision).url

    @property
    def endpoint(self) -> str | None:
        """Its SageMaker endpoint."""
        return ready.way(self.revision).endpoint

    def invoke(self) -> str:
        """A command that sends a first request."""
        now = want_of(self.revision)
        question = shlex.quote(now.question)
        if self.endpoint:
            return (
                f"aws sagemaker-runtime invoke-endpoint --endpoint-name {self.endpoint} /dev/stdout"
                f" --content-type application/json --cli-binary-format raw-in-base64-out --body {question}"
            )
        service = ready.way(self.revision).service
        if not service:
            return ""
        scheme, namespace, name, port = service
        key = " --key-file FILE" if now.keyed else ""
        believed, url = ("SSL_CERT_FILE=ca.crt ", f" --url https://localhost:{port}") if scheme == "https" else ("", "")
        return (
            f"kubectl --namespace {namespace} port-forward service/{name} {port} &"
            f" {believed}hyperpd invoke --chat Hello{url}{key}"
        )

    def history(self) -> list[Revision]:
        """The revisions that are kept, the oldest first."""
        return revisions.history(self.api, self.revision.home)

    def status(self) -> Status:
        """How many workers are wanted and ready, and what holds it up. Raises CloudError."""
        found = ready.parts(self.api, self.revision)
        why = [] if self.revision.whole else [self._in_part()]
        why += [] if all(one.good for one in found) else ready.causes(self.api, self.revision)
        return Status(self.revision, found, self.url, self.endpoint, tuple(why))

    def scaled(self, replicas: Mapping[str, int]) -> Wanted:
        """What runs, with other numbers of workers; `gateway` is a role here. Pods that stay are not restarted.

        Raises RecipeError where a number is not to be chosen by hand, and where the newest revision is there in part;
        CapacityError.
        """
        if not self.revision.whole:
            raise RecipeError(f"scale {self.name}", [self._in_part()])
        now = want_of(self.revision)
        by_recipe = counts(now.parsed)
        found = [f"{role}: {why}" for role in replicas if (why := _unscalable(self.revision, now, role))]
        if found:
            raise RecipeError(f"scale {self.name}", found)
        merged = {**self.revision.replicas, **replicas}
        merged = {role: count for role, count in merged.items() if by_recipe.get(role) != count}
        return want_of(self.revision, merged)

    def _in_part(self) -> str:
        """What to do about a revision that was not applied as a whole."""
        now = self.revision
        what = "was refused half-way" if now.state == "failed" else "is being applied, or was cut off"
        back = next((one.number for one in reversed(self.history()) if one.whole), None)
        ways = "deploy its recipe again" + (
            f", or go back: hyperpd deploy {self.name} --revision {back}" if back else ""
        )
        return f"revision {now.number} {what}, so it is there in part: {ways} (with the same --cluster or --context)"

    def scale(
        self,
        replicas: Mapping[str, int],
        progress: Tell = silent,
        *,
        timeout_s: float | None = None,
        key: str | None = None,
    ) -> Deployment:
        """Set how many workers roles have, as in {"prefill": 3}. It is a revision: the next `deploy` says it where its
        recipe has another number. key: as for deploy(). Raises RecipeError, CapacityError, CloudError, NotReady."""
        wanted = self.scaled(replicas)
        check_key(wanted, key)
        planned = rollout.plan(self.api, wanted)
        return roll_out(self.api, planned, progress, aws=self.aws, timeout_s=timeout_s, key=key)

    def logs(
        self, role: str | None = None, *, follow: bool = False, previous: bool = False, tail: int | None = None
    ) -> Iterator[Line]:
        """Lines of its pods' logs, each with its pod. Raises RecipeError for a role it has not, CloudError."""
        return logs.lines(self.api, self.revision, role, follow=follow, previous=previous, tail=tail)

    def removal(self, *, everything: bool = False) -> Removal:
        """What delete() would remove, and what would stay."""
        return removal.plan(self.api, self.history(), everything=everything)

    def delete(self, progress: Tell = silent, *, everything: bool = False, timeout_s: float = 900) -> Removal:
        """Remove what hyperpd applied, and wait until it is gone. everything: also what others keep in its namespaces.

        Raises NotReady where something stays, CloudError.
        """
        found = self.removal(everything=everything)
        removal.remove(self.api, found, progress, timeout_s=timeout_s)
        return found


def deploy(
    recipe: str | Path | RecipeFile,
    place: Place | Api,
    *,
    target: str = TARGET,
    settings: Iterable[str] = (),
    progress: Tell = silent,
    timeout_s: float | None = None,
    wait: bool = True,
    force: bool = False,
    key: str | None = None,
) -> Deployment:
    """Plan, apply and wait until it serves; asks nobody. settings: the target's options as "key=value".

    key: an API key of a gateway that asks for one (gateway.auth: keys), for the one request that proves it; without it
    none is made there. Raises RecipeError, CapacityError, CloudError; NotReady where it does not serve in time.
    """
    file = recipe if isinstance(recipe, RecipeFile) else recipes.load(recipe)
    wanted = want(file, target, settings)
    check_key(wanted, key)
    region = place.region if isinstance(place, Place) else None
    api = place.connect() if isinstance(place, Place) else place
    try:
        planned = rollout.plan(api, wanted, force=force)
        return roll_out(api, planned, progress, aws=Aws(region), timeout_s=timeout_s, wait=wait, force=force, key=key)
    except BaseException:
        if isinstance(place, Place):
            api.close()
        raise


def roll_out(
    api: Api,
    planned: Plan,
    progress: Tell = silent,
    *,
    aws: Aws | None = None,
    timeout_s: float | None = None,
    wait: bool = True,
    force: bool = False,
    key: str | None = None,
) -> Deployment:
    """Apply a plan, and wait until it serves. key: as for deploy(), checked. Raises CloudError, NotReady."""
    revision = rollout.apply(api, planned, progress, force=force)
    progress(Step(f"{revision.name}: revision {revision.number} in {revision.home} is applied"))
    if not wait:
        return Deployment(api, revision, aws=aws)

    def ask(endpoint: str, body: bytes) -> bytes:
        sent = {"EndpointName": endpoint, "ContentType": "application/json", "Body": body}
        return bytes((aws or Aws()).call("sagemaker-runtime", "invoke_endpoint", **sent)["Body"].read())

    now = want_of(revision)
    within_s = timeout_s if timeout_s is not None else patience_s(revision)
    ready.Wait(
        api,
        revision,
        now.question,
        keyed=now.keyed,
        key=key,
        tell=progress,
        timeout_s=within_s,
        ask_endpoint=ask,
    ).done()
    return Deployment(api, rollout.finish(api, planned, revision, progress), aws=aws)


def check_key(wanted: Wanted, key: str | None) -> None:
    """Raises RecipeError for a key that nobody would ask for, or that cannot be sent."""
    if key is None:
        return
    if not wanted.keyed:
        raise RecipeError("API key", ["nobody would ask for it: gateway.auth is none; leave --key-file out"])
    api_key.check(key, "API key")


def want_of(revision: Revision, replicas: Mapping[str, int] | None = None) -> Wanted:
    """What a revision deployed, rendered by this version; `replicas` instead of its own.

    Raises RecipeError where this version reads its recipe or settings no more.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = revision.file(Path(folder))
        chosen = revision.replicas if replicas is None else replicas
        return want(file, revision.target, revision.settings, chosen)


def patience_s(revision: Revision) -> float:
    """How long pods may take by their own objects, one after the other."""
    longest = 0
    for body in revision.objects:
        spec = body.get("spec") or {}
        each = spec.get("progressDeadlineSeconds") or spec.get("maxDeployTimeInSeconds") or 0
        longest = max(longest, each * max(1, int(spec.get("replicas", 1))))
    return float(longest or 3600)


def _unscalable(revision: Revision, now: Wanted, role: str) -> str:
    """Why a role's number is not to be chosen by hand."""
    spec = now.parsed.roles().get(role) if role != "gateway" else None  # type: ignore[call-overload]
    if spec and spec.autoscaling:
        return "an autoscaler decides: change autoscaling.min and .max in the recipe, and deploy it"
    if now.parsed.fabric == "local" and not now.parsed.aggregated:
        return "everything is one pod (kv_transfer.fabric: local): its numbers are the recipe's"
    if any("kueue.x-k8s.io/pod-group-total-count" in str(one) for one in revision.objects) and role != "gateway":
        return "Kueue admits both roles as one group of a fixed size: undeploy, and deploy a recipe with other replicas"
    return ""

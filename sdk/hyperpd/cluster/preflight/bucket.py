"""The bucket of the lifecycle files: its name, whose it is, where, and, where files are there already, these."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from hyperpd.cluster.aws import MISSING
from hyperpd.cluster.blueprint import Blueprint
from hyperpd.cluster.preflight.finding import Finding, refused, warning, written
from hyperpd.cluster.preflight.nodes import Nodes
from hyperpd.cluster.preflight.reading import Object, Reading, denied
from hyperpd.errors import CloudError

_READABLE = "sagemaker-"
_LEGACY = "provisioning_parameters.json"
_HEAD_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket that is named, or would be made; `files`: those that a group runs from a prefix of it, None: unread."""

    name: str
    path: str  # in the cluster file; empty: it would be made
    state: Literal["there", "missing", "elsewhere", "not ours"]
    region: str
    files: dict[str, bytes | None]  # key → its first bytes; None: not there
    parameters: Object | None = None  # provisioning_parameters.json, where Slurm would read it


def read(reading: Reading, plan: Blueprint, nodes: list[Nodes]) -> Iterator[Bucket]:
    """Those that could be read."""
    wanted: dict[str, str] = {plan.bucket: "bucket" if plan.spec.bucket else ""} if plan.scripts else {}
    keys: dict[str, set[str]] = {}
    prefixes: dict[str, set[str]] = {}
    for one in nodes:
        lifecycle = plan.lifecycle(one.group)
        if lifecycle.source.startswith("s3://"):
            name, _, prefix = lifecycle.source.removeprefix("s3://").partition("/")
            wanted[name] = f"{one.path}.lifecycle.source" if one.group.lifecycle else "lifecycle.source"
            prefix = f"{prefix.strip('/')}/".lstrip("/")
            prefixes.setdefault(name, set()).add(prefix)
            for hook in filter(None, (lifecycle.on_create, lifecycle.on_init_complete)):
                keys.setdefault(name, set()).add(prefix + hook)
    for name, path in wanted.items():
        state = _state(reading, plan, name)
        if state is None:
            continue
        there = state[0] == "there"
        files = {key: _content(reading, name, key) for key in sorted(keys.get(name, ()))} if there else {}
        legacy = prefixes.get(name, set()) if there and plan.spec.orchestrator.slurm else set()
        yield Bucket(name, path, *state, files, _parameters(reading, name, legacy))


def _state(
    reading: Reading, plan: Blueprint, name: str
) -> tuple[Literal["there", "missing", "elsewhere", "not ours"], str] | None:
    try:
        answer = reading.aws.call("s3", "head_bucket", Bucket=name, ExpectedBucketOwner=plan.place.account)
    except CloudError as error:
        if error.code in MISSING:
            return "missing", ""
        # S3 says 403 for the bucket of somebody else, and where s3:ListBucket is missing.
        if denied(error.code):
            return "not ours", ""
        if error.code in ("301", "PermanentRedirect"):
            return "elsewhere", "another Region"
        reading.note(f"bucket {name}", "s3:ListBucket", error)
        return None
    region = str(answer.get("BucketRegion") or plan.place.region)
    return ("there" if region == plan.place.region else "elsewhere"), region


def _content(reading: Reading, name: str, key: str) -> bytes | None:
    found = reading.ask(
        f"lifecycle file {key}", "s3", "get_object", Bucket=name, Key=key, Range=f"bytes=0-{_HEAD_BYTES - 1}"
    )
    if found is None:
        return b""
    return found["Body"].read() if found else None


def _parameters(reading: Reading, name: str, prefixes: set[str]) -> Object | None:
    for prefix in sorted(prefixes):
        found = reading.ask(_LEGACY, "s3", "get_object", Bucket=name, Key=prefix + _LEGACY)
        if found:
            try:
                parsed = json.loads(found["Body"].read())
            except ValueError:
                parsed = {}
            return parsed if isinstance(parsed, dict) else {}
    return None


def check(plan: Blueprint, buckets: list[Bucket]) -> Iterator[Finding]:
    """Every bucket."""
    for one in buckets:
        place = f"S3 console, Buckets, {one.name}"
        if not one.name.startswith(_READABLE):
            what = f"bucket {one.name}: AWS's policy lets nodes read buckets alone whose name begins with {_READABLE}"
            yield written("bucket-name", what, one.path, f"set {one.path}: {_renamed(one)}")
        if one.state == "missing" and one.path:
            yield refused("bucket", f"there is no bucket {one.name}", one.path, _create(one.name, plan.place.region))
        elif one.state == "elsewhere":
            what = f"bucket {one.name} is in {one.region}, the cluster in {plan.place.region}"
            yield written("bucket", what, one.path or place, f"set {one.path or 'bucket'}: {_renamed(one, plan)}")
        elif one.state == "not ours":
            what = f"bucket {one.name} is of another account, or s3:ListBucket on it is missing"
            fix = f"set {one.path or 'bucket'}: {_renamed(one, plan)}"
            yield refused("bucket", what, one.path or place, fix)
        yield from _files(plan, one)


def _files(plan: Blueprint, one: Bucket) -> Iterator[Finding]:
    for key, content in one.files.items():
        where = f"s3://{one.name}/{key}"
        if content is None:
            what = f"{where} is not there, and nodes are to run it"
            yield written("lifecycle-files", what, one.path, f"set {one.path.rpartition('.')[0]}: {{source: hyperpd}}")
        elif content.partition(b"\n")[0].endswith(b"\r"):
            what = f"{where}: lines end with a carriage return, and nodes say 'bad interpreter'"
            local = key.rpartition("/")[2]
            fix = (
                f"aws s3 cp {where} {local} --region {plan.place.region}\nsed -i 's/\\r$//' {local}\n"
                f"aws s3 cp {local} {where} --region {plan.place.region}"
            )
            yield written("lifecycle-files", what, where, fix)
    if one.parameters is not None and plan.spec.orchestrator.slurm is not None:
        listed = {
            group.get("instance_group_name")
            for group in one.parameters.get("worker_groups", ())
            if isinstance(group, dict)
        } | {one.parameters.get("controller_group"), one.parameters.get("login_group")}
        absent = [name for name in plan.groups if name not in listed]
        if absent:
            what = f"{_LEGACY} names no group {', '.join(absent)}: their nodes would not join Slurm"
            yield written(
                "provisioning-parameters", what, f"s3://{one.name}, {_LEGACY}", f"add {', '.join(absent)} to it"
            )
        elif any(group.slurm for group in plan.groups.values()):
            what = f"{_LEGACY} is in the prefix: it wins, and slurm: in the file has no effect"
            yield warning("provisioning-parameters", what, f"s3://{one.name}, {_LEGACY}", "delete it from the prefix")


def _create(name: str, region: str) -> str:
    # us-east-1 is where buckets go that say nothing, and it takes no word for itself.
    where = "" if region == "us-east-1" else f" --create-bucket-configuration LocationConstraint={region}"
    return f"aws s3api create-bucket --bucket {name} --region {region}{where}"


def _renamed(one: Bucket, plan: Blueprint | None = None) -> str:
    """Without bucket: one is made, with a name that is nobody's; a source in S3 has to come from somewhere else."""
    if one.path.endswith("source"):
        return "hyperpd"
    return "null" if one.path or plan is None else f"sagemaker-{plan.place.account}-{plan.spec.name.lower()}"

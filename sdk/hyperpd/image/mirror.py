"""A recipe made fit for a closed network: its image in one's own registry, its model in one's own bucket."""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from hyperpd.engine import hub_names
from hyperpd.errors import CloudError, NotReady, RecipeError
from hyperpd.image.tools import Reference, Shell, must, pushed, reference, tool
from hyperpd.recipe import RecipeFile, parse

# What a closed network does not reach. A private registry may have such a name in its path.
PUBLIC_HOSTS = (
    *("huggingface.co", "hf.co", "modelscope.cn", "docker.io", "docker.com", "ghcr.io", "github.com", "nvcr.io"),
    *("quay.io", "gcr.io", "pkg.dev", "registry.k8s.io", "public.ecr.aws", "efa-installer.amazonaws.com"),
)
_REPORT_BYTES = 64 * 2**20  # a file above this reports every tenth
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Mirror:
    """What goes where: decided before anything is copied."""

    file: RecipeFile
    source: Reference
    target: Reference  # with the tag in the user's registry
    folder: Path | None  # of the model here
    place: str = ""  # of the model in S3: s3://BUCKET/PREFIX
    model_path: str = ""  # of the model on the machines

    def recipe(self, digest: str = "") -> str:
        """The recipe for the closed network. Raises RecipeError when it would reach for a public host."""
        model = self.file.recipe.model
        document = self.file.recipe.model_dump(mode="json", exclude_unset=True)
        document |= {"image": replace(self.target, digest=digest).pinned}
        head = [f"# Made by hyperpd image mirror from a recipe with the digest {self.file.digest}."]
        if self.folder:
            kept = {k: v for k, v in document["model"].items() if k not in ("generated", "huggingface", "revision")}
            document["model"] = {"path": self.model_path, "served_as": model.name} | kept | {"path": self.model_path}
            was = f"{model.name}{f' at revision {model.revision}' if model.revision else ''}"
            head += [
                f"# The model ({was}) lies in S3. Every machine needs it at model.path before a worker starts:",
                f"#   aws s3 sync {shlex.quote(self.place)} {shlex.quote(self.model_path)}",
            ]
        text = "\n".join([*head, yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=1000)])
        where = f"{self.file.path} mirrored"
        found = [f"{name}; name a folder of the machines instead" for name in hub_names(parse(document, where))]
        found += [f"names {host}, which a closed network does not reach" for host in public_hosts(text)]
        if found:
            raise RecipeError(where, found)
        return text


def public_hosts(text: str) -> list[str]:
    """The public hosts that `text` names; not those that are part of a private registry's path."""
    return [host for host in PUBLIC_HOSTS if re.search(rf"(?:(?<![\w/-])|(?<=//)){re.escape(host)}(?![\w-])", text)]


def plan_mirror(
    file: RecipeFile,
    registry: str,
    *,
    image: str | None = None,
    bucket: str | None = None,
    folder: Path | None = None,
    model_path: str | None = None,
) -> Mirror:
    """Decide what goes where; nothing is copied. Raises RecipeError with every problem found.

    registry: HOST/PATH; image: instead of the recipe's; bucket: s3://BUCKET/PREFIX; folder: the
    model's files here; model_path: where they will be on the machines.
    """
    recipe, found = file.recipe, []
    named = image or recipe.image
    if not named:
        found.append("no image; add `image: …` to it, or give --image")
    host = registry.partition("/")[0]
    if not ("." in host or ":" in host or host == "localhost"):
        found.append(f"--registry {registry}: no host; give HOST/PATH, as in registry.example/ml")
    if folder and not (folder / "config.json").is_file():
        found.append(f"--model-folder {folder}: no config.json here; give the folder of a Hugging Face model")
    if folder and not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{2,62}(/[\w!.*'()/-]+)?", bucket or ""):
        found.append(f"--bucket {bucket}: give s3://BUCKET/PREFIX, where the model folder's files go")
    if bucket and not folder:
        found.append("--bucket goes with --model-folder: there is nothing to upload")
    if recipe.model.huggingface and not folder:
        found.append(f"{recipe.model.huggingface} comes from a hub; download it and give --model-folder")
    if model_path and not (folder and model_path.startswith("/")):
        found.append("--model-path goes with --model-folder, and is absolute")
    if found or not named:
        raise RecipeError(str(file.path), found)
    source, name = reference(named, "image"), recipe.model.name
    tag = source.tag or source.digest.replace(":", "-") or "latest"
    target = reference(f"{registry.rstrip('/')}/{source.repository.rpartition('/')[2]}:{tag}", "--registry")
    plan = Mirror(file, source, target, folder)
    if folder:
        path = model_path or recipe.model.path or f"/models/{name.rpartition('/')[2]}"
        plan = replace(plan, place=f"{str(bucket).rstrip('/')}/{name.strip('/')}", model_path=path)
    plan.recipe()
    return plan


def copy_image(shell: Shell, source: Reference, target: Reference) -> str:
    """Copy an image between registries; its digest, or "" when dry. Raises NotReady, CloudError.

    skopeo copies every architecture and keeps the digest; docker and buildah take this machine's
    architecture, and the digest may change.
    """
    if shutil.which("skopeo"):
        digest = shell.digest(
            *("skopeo", "copy", "--all", "--preserve-digests", f"docker://{source.pinned}", f"docker://{target}")
        )
        if source.digest and not shell.dry and digest != source.digest:
            raise CloudError(f"{target} is {digest}, but {source} was asked for")
        return digest
    by = must(tool())
    by.pull(shell, source)
    return pushed(shell, by, source.pinned, target)


def model_files(folder: Path) -> list[Path]:
    """The files of a model, relative and sorted; hidden ones are left out, links are followed."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in files if not any(part.startswith(".") for part in path.parts))


@dataclass(frozen=True, slots=True)
class Uploaded:
    """How much went to S3, and how much was there."""

    files: int = 0
    skipped: int = 0
    sent_bytes: int = 0


def upload(folder: Path, place: str, say: Say) -> Uploaded:
    """Upload a model's files below s3://BUCKET/PREFIX; those with the same size and SHA-256 are skipped.

    The SHA-256 is kept with each object (metadata `sha256`); a file that was cut off is sent anew.
    Raises NotReady without boto3, CloudError when S3 refuses.
    """
    try:
        import boto3
    except ImportError:
        raise NotReady("uploading needs boto3: pip install 'hyperpd[aws]'") from None
    bucket, _, prefix = place.removeprefix("s3://").partition("/")
    done = Uploaded()
    with _s3_refusals(place):
        s3 = boto3.client("s3")
        for name in model_files(folder):
            path, key = folder / name, f"{prefix}/{name.as_posix()}"
            size = path.stat().st_size
            with path.open("rb") as content:
                checksum = hashlib.file_digest(content, "sha256").hexdigest()
            if _there(s3, bucket, key) == (size, checksum):
                say(f"{name}: there already ({size:,} bytes)")
                done = replace(done, skipped=done.skipped + 1)
                continue
            progress = _Progress(str(name), size, say)
            s3.upload_file(str(path), bucket, key, ExtraArgs={"Metadata": {"sha256": checksum}}, Callback=progress)
            say(f"{name}: uploaded ({size:,} bytes)")
            done = replace(done, files=done.files + 1, sent_bytes=done.sent_bytes + size)
    return done


def _there(s3: Any, bucket: str, key: str) -> tuple[int, str] | None:
    """Size and SHA-256 of an object, or None."""
    from botocore.exceptions import ClientError

    try:
        head = s3.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["Error"]["Code"] in ("404", "NoSuchKey", "NotFound"):
            return None
        raise
    return head["ContentLength"], head["Metadata"].get("sha256", "")


@contextmanager
def _s3_refusals(place: str) -> Iterator[None]:
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (Boto3Error, BotoCoreError, ClientError) as error:
        raise CloudError(f"{place}: {error}\nRun it again when that is mended: what is there is skipped") from None


class _Progress:
    """A line for every tenth of a large file; called by boto3's threads with the bytes sent since."""

    def __init__(self, name: str, size: int, say: Say) -> None:
        self._name, self._size, self._say = name, size, say
        self._sent, self._told = 0, 0
        self._lock = threading.Lock()

    def __call__(self, sent: int) -> None:
        with self._lock:
            self._sent += sent
            tenths = self._sent * 10 // self._size if self._size > _REPORT_BYTES else 0
            if self._told < tenths < 10:
                self._told = tenths
                self._say(f"{self._name}: {tenths * 10} %")

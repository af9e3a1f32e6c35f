"""Lifecycle files: hyperpd's own or a folder's, and their way into a bucket.

They lie below a digest of their names and contents. What is there is never changed, only completed, so nodes that
are replaced weeks later read what their cluster was made with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from hyperpd.errors import RecipeError

_KINDS = (".sh", ".py", ".env", ".tsv")
_NAME_MAX = 128  # characters, as LifeCycleConfig takes a file's name
_BYTES_MAX = 50 * 2**20  # of a folder: scripts, and not a data set given by mistake


@dataclass(frozen=True, slots=True)
class Scripts:
    """Files by their path below the folder."""

    files: Mapping[str, bytes]
    digest: str


def scripts(source: str) -> Scripts:
    """The files of `source`: hyperpd, or a folder. Hidden files are left out.

    Raises RecipeError where they cannot be lifecycle files.
    """
    folder = _shipped() if source == "hyperpd" else Path(source).expanduser()
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and _is_one(path, folder, source == "hyperpd"))
    found, size = [], sum(path.stat().st_size for path in paths)
    if not paths:
        found.append("is empty or no folder")
    if size > _BYTES_MAX:
        found.append(f"has {size:,} bytes; lifecycle files have at most {_BYTES_MAX:,}: nodes download all of them")
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    found += [f"{name}: more than {_NAME_MAX} characters" for name in names if len(name) > _NAME_MAX]
    if found:
        raise RecipeError(f"lifecycle source {source}", found)
    files = {name: path.read_bytes() for name, path in names.items()}
    found = [
        f"{name}: lines end with a carriage return, and nodes say 'bad interpreter'; save it with Unix line ends"
        for name, content in files.items()
        if name.endswith(".sh") and content.partition(b"\n")[0].endswith(b"\r")
    ]
    if found:
        raise RecipeError(f"lifecycle source {source}", found)
    digest = hashlib.sha256()
    for name, content in files.items():
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return Scripts(files, digest.hexdigest()[:16])


def _is_one(path: Path, folder: Path, shipped: bool) -> bool:
    hidden = any(part.startswith((".", "__pycache__")) for part in path.relative_to(folder).parts)
    return not hidden and (not shipped or path.suffix in _KINDS)


def _shipped() -> Path:
    packaged = Path(str(resources.files("hyperpd"))) / "lifecycle_scripts"
    return packaged if packaged.is_dir() else Path(__file__).resolve().parents[3] / "lifecycle_scripts"

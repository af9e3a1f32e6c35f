"""`python -m hyperpd_runtime.endpoints FOLDER`: the workers of a job, as one file for gateways: FOLDER/endpoints.json.

Each worker has a folder in FOLDER, its state-dir, where its fleet.json says what it is doing: that is how it
announces itself. The file names those that are ready, with the fields of llm-d's file discovery, and is replaced
atomically whenever that changes. It has one writer, this process, so no lock is needed on a shared file system;
whoever starts workers removes the fleet.json of one that ended without a word. Ends at SIGTERM, and takes the file
with it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hyperpd.errors import HyperpdError, RecipeError
from hyperpd_runtime.gateway.discovery import LABELS, ROLE_LABEL, Endpoint

FILE = "endpoints.json"
_LOOK_EVERY_S = 0.5


def announced(folder: Path) -> list[Endpoint]:
    """The workers below `folder` that say they are ready and have an API, in the order of their names."""
    found = []
    for state in sorted(folder.glob("*/fleet.json")):
        try:
            said = json.loads(state.read_bytes())
        except (OSError, ValueError):  # removed, or on its way here over the network
            continue
        if said["phase"] != "ready":
            continue
        for worker in said["workers"]:
            if "." not in worker["name"]:  # another machine of a worker, which has no API
                found.append(Endpoint(worker["role"], worker["name"], worker["url"]))
    return found


def document(workers: Sequence[Endpoint]) -> dict[str, Any]:
    """The file's content."""
    entries = []
    for worker in workers:
        at = urlsplit(worker.url)
        labels = {ROLE_LABEL: LABELS[worker.role]}
        entries.append({"name": worker.name, "address": at.hostname, "port": str(at.port), "labels": labels})
    return {"endpoints": entries}


def replace(path: Path, workers: Sequence[Endpoint]) -> None:
    """Write the file so that who reads it sees the old one or the new one, never a part."""
    part = path.with_name(f"{path.name}.part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(document(workers), file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def follow(folder: Path, ended: threading.Event) -> None:
    """Keep the file true until `ended`."""
    path, last = folder / FILE, None
    try:
        while not ended.is_set():
            if (workers := announced(folder)) != last:
                replace(path, workers)
                last = workers
                print(f"event=endpoints workers={','.join(worker.name for worker in workers) or 'none'}", flush=True)
            ended.wait(_LOOK_EVERY_S)
    finally:
        path.unlink(missing_ok=True)


def main() -> int:
    """Exit code 0 at SIGTERM."""
    try:
        if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
            raise RecipeError("endpoints", ["give one argument, the folder that has a folder for each worker"])
        ended = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: ended.set())
        follow(Path(sys.argv[1]), ended)
    except HyperpdError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

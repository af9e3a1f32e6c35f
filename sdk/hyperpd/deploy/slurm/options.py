"""What the recipe does not say: whose job, in which partitions, with which files."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from hyperpd.recipe import Block

# Nothing that a shell, Slurm's patterns in file names (%) or a list of mounts (, and :) would read as something else.
_PATH = r"^/[-A-Za-z0-9_.+@=]+(/[-A-Za-z0-9_.+@=]+)*$"
Path = Annotated[str, StringConstraints(pattern=_PATH)]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][-A-Za-z0-9_.]*$")]
_TIME = r"(?:(\d{1,3})-)?(\d{1,2}):([0-5]\d):([0-5]\d)"


class Options(Block):
    """Options of the target slurm."""

    folder: Path | None = Field(
        None,
        description="Folder on a file system that all nodes share, yours alone (mkdir -m 700); required. Every run of a"
        " job has a folder in it, with its logs and the endpoints file",
    )
    mode: Literal["container", "bare"] = Field(
        "container", description="container: Enroot by Pyxis; bare: the engine is installed on the nodes"
    )
    image: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9/][-A-Za-z0-9_.:/@#+]*$",
        description="mode container: an image with its tag, or a .sqsh file, instead of the recipe's",
    )
    python: Path | None = Field(
        None, description="mode bare: Python that has hyperpd and the engine, the same path on every node"
    )
    partition: Word | None = Field(None, description="Partition of every role; default: the cluster's")
    prefill_partition: Word | None = Field(None, description="Partition of prefill alone, first of all")
    decode_partition: Word | None = Field(None, description="Partition of decode alone")
    account: Word | None = Field(None, description="Account that is charged")
    time: str | None = Field(None, pattern=rf"^{_TIME}$", description="Time limit, as in 8:00:00 or 2-00:00:00")
    gres: bool = Field(
        False, description="Ask for GPUs by --gres=gpu:N, where slurm.conf has them; nodes are exclusive either way"
    )
    restarts: int = Field(
        3,
        ge=0,
        le=100,
        description="How often a worker or gateway that fails is started again, counted anew after ten minutes; the"
        " next time ends the job, and says which it was",
    )
    cache_folder: Path | None = Field(
        None,
        description="Shared folder for downloads and compiled code, yours alone: the job makes it where it is missing;"
        " default with mode bare: your own cache",
    )
    keys_file: Path | None = Field(
        None, description="Shared key file, where gateway.auth is keys; readable by you alone"
    )
    hf_token_file: Path | None = Field(None, description="Shared file with a Hugging Face token; readable by you alone")

    @model_validator(mode="after")
    def _goes_with_mode(self) -> Options:
        if self.mode == "bare" and self.image:
            raise ValueError("image goes with mode container")
        if self.mode == "container" and self.python:
            raise ValueError("python goes with mode bare: a container has its own")
        return self

    @property
    def time_s(self) -> int | None:
        """The time limit in seconds."""
        if not (self.time and (found := re.fullmatch(_TIME, self.time))):
            return None
        days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds

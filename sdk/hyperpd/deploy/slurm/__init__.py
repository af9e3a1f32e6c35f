"""The target slurm: one batch script that runs a recipe on HyperPod's Slurm, or any other.

A heterogeneous job with a component for each role; a step for each worker, one for the gateway on the first node,
and one that keeps the endpoints file the gateway follows. Slurm places machines; the script is what it runs.
"""

from __future__ import annotations

from hyperpd.deploy.slurm import refusals, script
from hyperpd.deploy.slurm.fields import FIELDS
from hyperpd.deploy.slurm.options import Options
from hyperpd.deploy.target import Document
from hyperpd.recipe import Recipe, RecipeFile

__all__ = ["FIELDS", "NAME", "SUMMARY", "Options", "documents", "losses", "problems"]

NAME = "slurm"
SUMMARY = "HyperPod Slurm, or any Slurm: one sbatch script, a component for each role (Enroot/Pyxis, or bare)"


def problems(recipe: Recipe, options: Options) -> list[str]:
    """Why this recipe cannot be rendered with these options; every problem at once."""
    return list(refusals.problems(recipe, options))


def losses(recipe: Recipe, options: Options) -> list[str]:
    """What this recipe says and a job with these options does not do."""
    return list(refusals.losses(recipe, options))


def documents(file: RecipeFile, options: Options) -> list[Document]:
    """The script, with the recipe in it."""
    lost = [*refusals.not_expressed(file.recipe), *refusals.losses(file.recipe, options)]
    return [Document("job.sh", "sbatch job.sh", script.render(file, options, lost))]

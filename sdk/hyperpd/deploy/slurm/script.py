"""The batch script: what Slurm is asked for, what this recipe comes to, the recipe, and job.sh, which runs it.

job.sh is the same for every recipe: bash, as it stands. The text is plain where it can be: nothing that a recipe
says is left unquoted.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from textwrap import wrap

from hyperpd import __version__
from hyperpd.deploy.slurm import layout, refusals
from hyperpd.deploy.slurm.layout import Component
from hyperpd.deploy.slurm.options import Options
from hyperpd.placement import JOB_STRIDE, JOBS, Ports
from hyperpd.recipe import Recipe, RecipeFile


def render(file: RecipeFile, options: Options, lost: Iterable[str]) -> str:
    """job.sh as it is submitted."""
    recipe = file.recipe
    components = layout.components(recipe)
    parts = [
        "#!/bin/bash",
        *_header(file, lost),
        *_directives(recipe, options, components),
        "# shellcheck disable=SC2329 # keep calls what it is given",
        "",
        *_settings(file, options, components),
        "",
        *_recipe(file),
    ]
    return "\n".join(parts) + "\n" + (resources.files("hyperpd.deploy.slurm") / "job.sh").read_text()


def _header(file: RecipeFile, lost: Iterable[str]) -> Iterator[str]:
    lines = [
        f"recipe: {file.recipe.name}",
        f"recipe digest: sha256 {file.digest}",
        f"target: slurm, rendered by hyperpd {__version__}",
        *(f"not expressed: {one}" for one in ([*lost] or ["nothing"])),
        "Submit: sbatch job.sh. End: scancel --batch --signal=TERM JOB, which finishes what runs, however long that"
        " takes; plain scancel leaves it KillWait seconds (slurm.conf).",
    ]
    for line in lines:
        yield from (f"# {part}" for part in wrap(line, 110, subsequent_indent="  "))


def _directives(recipe: Recipe, options: Options, components: Sequence[Component]) -> Iterator[str]:
    for component in components:
        if component.number:
            yield "#SBATCH hetjob"
        else:
            yield f"#SBATCH --job-name={recipe.name}"
            yield f"#SBATCH --output={options.folder}/%x-%j.log"
            yield "#SBATCH --open-mode=append"
            yield f"#SBATCH --signal=B:TERM@{refusals.ending_s(recipe)}"
        yield "#SBATCH --requeue"
        own = getattr(options, f"{component.name}_partition", None)
        asked = {"partition": own or options.partition, "account": options.account, "time": options.time}
        yield from (f"#SBATCH --{option}={value}" for option, value in asked.items() if value)
        yield f"#SBATCH --nodes={component.nodes}"
        yield "#SBATCH --ntasks-per-node=1"
        if recipe.accelerator == "gpu":
            yield "#SBATCH --exclusive"
            yield "#SBATCH --mem=0"
            if options.gres and component.gpus:
                yield f"#SBATCH --gres=gpu:{component.gpus}"
        else:
            yield f"#SBATCH --cpus-per-task={component.cpus}"
            yield f"#SBATCH --mem={component.memory_gib}G"


def _settings(file: RecipeFile, options: Options, components: Sequence[Component]) -> Iterator[str]:
    recipe = file.recipe
    types: dict[str, object] = {
        role: spec.instance_type
        for role, spec in recipe.roles().items()
        if spec.instance_type and recipe.fabric == "efa" and recipe.on_fabric(role)
    }
    secrets = [path for path in (options.keys_file, options.hf_token_file) if path]
    yield f"name={recipe.name}"
    yield f"digest={file.digest}"
    yield f"folder={options.folder}"
    yield f"cache={options.cache_folder or ''} # a folder of its user's alone, too"
    yield f"restarts={options.restarts} # of one worker or gateway that fails"
    # Jobs with GPUs have their nodes alone.
    yield f"slots={JOBS if recipe.accelerator == 'cpu' else 1} # of ports, of which a job takes one by its id"
    yield f"stride={JOB_STRIDE}"
    yield f"api_port={Ports().gateway_api}"
    yield f"admin_port={Ports().gateway_admin}"
    yield _array("components", [component.name for component in components])
    yield _table("workers", {c.name: c.workers for c in components})
    yield _table("nodes_each", {c.name: c.nodes_each for c in components}) + " # nodes of one worker"
    yield _table("per_node", {c.name: c.per_node for c in components}) + " # workers that share them"
    yield _table("first_index", {c.name: c.first_index for c in components}) + " # of the first of those"
    yield _table("instance_type", types)
    yield _array("secrets", secrets)
    yield _array("front_settings", ["--keys-file", options.keys_file] if options.keys_file else [])
    yield _array("python", [options.python] if options.python else ["python3"])
    yield _array("settings", _environment(options))
    yield from _container(recipe, options)


def _environment(options: Options) -> list[str]:
    """For every task; in a container the image's own would win otherwise."""
    found = []
    if options.cache_folder:
        found += [f"XDG_CACHE_HOME={options.cache_folder}", f"HF_HOME={options.cache_folder}/huggingface"]
    if options.hf_token_file:
        found.append(f"HF_TOKEN_PATH={options.hf_token_file}")
    return found


def _container(recipe: Recipe, options: Options) -> Iterator[str]:
    """srun's options of Pyxis: as its documentation has them, and never run by us."""
    if options.mode == "bare":
        yield _array("container", [])
        return
    yield "# Unverified: Pyxis and Enroot as documented; the devices of a node are Enroot's to pass on."
    mounts = [*_writable(recipe, options), *(f"{path}:{path}:ro" for path in _read_only(recipe, options))]
    yield "container=("
    for option in (
        f"--container-image={pyxis_image(str(options.image or recipe.image))}",
        f"--container-mounts={','.join(mounts)}",
        "--container-workdir=/tmp",
        "--no-container-mount-home",
        "--no-container-remap-root",
        "--no-container-entrypoint",
    ):
        yield f"  {_quoted(option)}"
    yield ")"


def _writable(recipe: Recipe, options: Options) -> list[str]:
    tiers = [spec.kv_tiers for spec in recipe.roles().values() if spec.kv_tiers]
    folders = [options.folder, options.cache_folder, *(tier.disk for tier in tiers)]
    return [f"{folder}:{folder}" for folder in dict.fromkeys(folders) if folder]


def _read_only(recipe: Recipe, options: Options) -> list[str]:
    paths = [recipe.model.path, *(adapter.path for adapter in recipe.model.adapters)]
    return [path for path in dict.fromkeys([*paths, options.keys_file, options.hf_token_file]) if path]


def pyxis_image(image: str) -> str:
    """An image as --container-image takes it: [USER@][REGISTRY#]IMAGE[:TAG], or the path of a squashfs file."""
    registry, slash, rest = image.partition("/")
    if image.startswith("/") or "#" in image or not slash or not ("." in registry or ":" in registry):
        return image
    return f"{registry}#{rest}"


def _recipe(file: RecipeFile) -> Iterator[str]:
    """A function that prints the recipe, byte for byte; `head` takes the line end of the text away again."""
    content = file.path.read_bytes()
    end = f"RECIPE_{file.digest[:16]}"  # which the recipe cannot have in it
    yield f"recipe() {{ head --bytes={len(content)} <<'{end}'"
    yield content.decode().removesuffix("\n")
    yield end
    yield "}"


def _array(name: str, values: Iterable[str | None]) -> str:
    return f"{name}=({' '.join(_quoted(str(value)) for value in values)})"


def _table(name: str, values: Mapping[str, object]) -> str:
    pairs = " ".join(f"[{key}]={_quoted(str(value))}" for key, value in values.items())
    return f"declare -A {name}=({pairs})"


def _quoted(value: str) -> str:
    """A word of bash; one with a comma is quoted, so that it is not taken for two of an array."""
    quoted = shlex.quote(value)
    return f"'{value}'" if quoted == value and "," in value else quoted

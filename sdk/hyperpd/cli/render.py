"""hyperpd render: a recipe as the documents of a target."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hyperpd.cli import completion, output

if TYPE_CHECKING:
    from hyperpd.cli.documents import recipe as documents


@click.command()
@click.argument("recipe", shell_complete=completion.recipe)
@click.option(
    "--target",
    shell_complete=completion.target,
    help="What to render for; hyperpd targets lists them. Required.",
)
@click.option("-o", "--out", "folder", type=click.Path(file_okay=False, path_type=Path), help="Folder for the files.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="An option of the target; may be repeated.")
@click.option("--dry-run", is_flag=True, help="With -o: say which files would change, write nothing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document: the objects, and what is not expressed.")
def render(
    recipe: str, target: str | None, folder: Path | None, settings: tuple[str, ...], dry_run: bool, as_json: bool
) -> None:
    """Print RECIPE (a file, or the name of a shipped recipe) as the documents of a target, or write them to a folder.

    The same recipe, options and version give the same bytes.
    """
    from hyperpd import deploy
    from hyperpd.errors import RecipeError
    from hyperpd.recipe import load

    if not target:
        raise click.UsageError(f"give --target, one of {', '.join(deploy.TARGETS)}; hyperpd targets says what each is")
    if dry_run and not folder:
        raise click.UsageError("--dry-run goes with -o: without it nothing is written")
    file = load(recipe)
    rendering = deploy.render(file, target, settings)
    files = deploy.texts(rendering, file, settings)
    if not (folder or as_json) and (odd := [name for name in files if not name.endswith(".yaml")]):
        found = f"{len(odd)} of {len(files)} files are not YAML, as {odd[0]}"
        raise RecipeError(f"target {target}", [f"{found}: give -o FOLDER, or --json"])
    with output.remains(f"what was written so far is whole; run it again for the rest: {output.typed()}"):
        written = _write(folder, files, dry_run) if folder else []
    left = [str(path) for path in others(folder, files)] if folder else []
    if as_json:
        document: documents.Rendering = {
            "recipe": file.recipe.name,
            "recipe_digest": file.digest,
            "target": target,
            "not_expressed": list(rendering.not_expressed),
            "documents": [{"file": one.file, "body": one.body} for one in rendering.documents],
            "files": written,
            "others": left,
        }
        output.document(document)
        return
    for lost in rendering.not_expressed:
        output.note(f"not expressed by {target}: {lost}")
    if not folder:
        output.piece("---\n".join(files.values()))
    for one in written:
        output.line(f"{one['state']}: {one['path']}")
    if left:
        note = "not of this rendering, left alone; what takes the whole folder would take them, too"
        output.note(f"{note}: {', '.join(left)}")


def _write(folder: Path, files: Mapping[str, str], dry_run: bool) -> list[documents.Written]:
    """Write what is not there yet; with dry_run, say so only."""
    told: list[documents.Written] = []
    for name, text in files.items():
        path = folder / name
        same = path.is_file() and path.read_text() == text
        if not (same or dry_run):
            write(path, text)
        told.append({"path": str(path), "state": "unchanged" if same else "would write" if dry_run else "written"})
    return told


def others(folder: Path, files: Collection[str]) -> list[Path]:
    """What else lies there and could be taken for a part: files of the same kinds, and all below its own folders."""
    kinds = {Path(name).suffix for name in files if "/" not in name}
    found = [path for path in folder.glob("*") if path.suffix in kinds]
    for top in {name.partition("/")[0] for name in files if "/" in name}:
        found += (folder / top).rglob("*")
    ours = {folder / name for name in files}
    return sorted(path for path in found if path.is_file() and path not in ours)


def write(path: Path, text: str) -> None:
    """Write a file, and the folders above it. Raises RecipeError where that cannot be."""
    from hyperpd.errors import RecipeError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise RecipeError("--out", [f"{path}: cannot be written: {error.strerror}"]) from None

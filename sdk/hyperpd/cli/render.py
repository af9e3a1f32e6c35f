"""hyperpd render: a recipe as the documents of a target."""

from __future__ import annotations

from pathlib import Path

import click

from hyperpd.cli import output


@click.command()
@click.argument("recipe")
@click.option("--target", required=True, help="What to render for; hyperpd targets lists them.")
@click.option("-o", "--out", "folder", type=click.Path(file_okay=False, path_type=Path), help="Folder for the files.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="An option of the target; may be repeated.")
@click.option("--dry-run", is_flag=True, help="With -o: say which files would change, write nothing.")
@click.option("--json", "as_json", is_flag=True, help="The objects and what is not expressed, as one JSON document.")
def render(
    recipe: str, target: str, folder: Path | None, settings: tuple[str, ...], dry_run: bool, as_json: bool
) -> None:
    """Print RECIPE (a file, or the name of a shipped recipe) as the documents of a target, or write them to a folder.

    The same recipe, options and version give the same bytes.
    """
    from hyperpd import deploy
    from hyperpd.errors import RecipeError
    from hyperpd.recipe import load

    if dry_run and not folder:
        raise click.UsageError("--dry-run goes with -o: without it nothing is written")
    file = load(recipe)
    rendering = deploy.render(file, target, settings)
    if as_json:
        output.document(
            {
                "recipe": file.recipe.name,
                "recipe_digest": file.digest,
                "target": target,
                "not_expressed": rendering.not_expressed,
                "documents": [{"file": one.file, "body": one.body} for one in rendering.documents],
            }
        )
        return
    files = deploy.texts(rendering, file, settings)
    for lost in rendering.not_expressed:
        output.note(f"not expressed by {target}: {lost}")
    if not folder:
        output.piece("---\n".join(files.values()))
        return
    for name, text in files.items():
        path = folder / name
        same = path.is_file() and path.read_text() == text
        if not (same or dry_run):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            except OSError as error:
                raise RecipeError("--out", [f"{path}: cannot be written: {error.strerror}"]) from None
        output.line(f"{'unchanged' if same else 'would write' if dry_run else 'written'}: {path}")
    if left := sorted(str(path) for path in folder.glob("*.yaml") if path.name not in files) if folder.is_dir() else []:
        output.note(f"not of this rendering, left alone: {', '.join(left)}")

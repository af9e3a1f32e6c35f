"""hyperpd completion: the Tab key in bash, zsh and fish; and what it offers for recipes, targets and fleets."""

from __future__ import annotations

from collections.abc import Iterable

import click
from click.shell_completion import CompletionItem

from hyperpd.cli import output


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes hyperpd's commands, options, recipes, targets and fleets with the Tab key.

    \b
    bash: eval "$(hyperpd completion bash)"        in ~/.bashrc; bash 4.4 or later
    zsh:  eval "$(hyperpd completion zsh)"         in ~/.zshrc, after compinit
    fish: hyperpd completion fish | source         in ~/.config/fish/config.fish
    """
    from click.shell_completion import get_completion_class

    root = context.find_root()
    found = get_completion_class(shell)
    assert found
    output.line(found(root.command, {}, "hyperpd", "_HYPERPD_COMPLETE").source())


def recipe(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Shipped recipes; files where none begins so."""
    from hyperpd.recipe import shipped

    return [CompletionItem(begun, type="file"), *_names(shipped(), begun)]


def target(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """What a recipe can be rendered for."""
    from hyperpd.deploy import TARGETS

    return _names(TARGETS, begun)


def fleet(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Fleets of this machine that run."""
    from hyperpd.cli.fleet import fleets

    return _names([one.name for one in fleets() if one.running()], begun)


def _names(known: Iterable[str], begun: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in known if name.startswith(begun)]

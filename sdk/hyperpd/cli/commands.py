"""Groups of commands: whole sentences in their help, the nearest name for one that does not exist; and modules that are
imported when a command is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import click

_SENTENCE = 400  # characters: none is longer


class Group(click.Group):
    """`sections`: title → names of commands, as the help shows them; the default has all under one title."""

    def __init__(self, *args: Any, sections: Mapping[str, Sequence[str]] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sections = sections

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """As click does, but first sentences are not cut short."""
        sections = self._sections or {"Commands": self.list_commands(context)}
        for title, names in sections.items():
            found = ((name, self.get_command(context, name)) for name in names)
            with formatter.section(title):
                formatter.write_dl([(name, one.get_short_help_str(_SENTENCE)) for name, one in found if one])

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does; what does not exist is answered with the nearest that does."""
        name, known = args[0], self.list_commands(context)
        if name not in known and not name.startswith("-") and not context.resilient_parsing:
            from difflib import get_close_matches

            near = get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            context.fail(f"no command {name!r}; {hint}")
        return super().resolve_command(context, args)


class Commands(Group):
    """`commands`: name → module, which has the command under the module's name."""

    def __init__(self, *args: Any, commands: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._modules = commands

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self._modules)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in self._modules:
            return None
        module = self._modules[name]
        command: click.Command = getattr(importlib.import_module(module), module.rpartition(".")[2])
        return command

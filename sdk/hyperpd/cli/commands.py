"""A group of commands whose modules are imported when a command is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click


class Commands(click.Group):
    """`commands`: name → module, which has the command under the module's name."""

    def __init__(self, *args: Any, commands: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._modules = commands

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self._modules)

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does; what does not exist is answered with the nearest that does."""
        name = args[0]
        if name not in self._modules and not name.startswith("-") and not context.resilient_parsing:
            from difflib import get_close_matches

            near = get_close_matches(name, self._modules, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(self._modules)}"
            context.fail(f"no command {name!r}; {hint}")
        return super().resolve_command(context, args)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in self._modules:
            return None
        module = self._modules[name]
        command: click.Command = getattr(importlib.import_module(module), module.rpartition(".")[2])
        return command

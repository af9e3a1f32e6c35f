"""The `hyperpd` command. Each command's module is imported when it is asked for."""

from __future__ import annotations

import sys

import click

from hyperpd import __version__
from hyperpd.cli import output
from hyperpd.cli.commands import Commands
from hyperpd.errors import HyperpdError

_SECTIONS = {
    "Run and ask": ("up", "status", "down", "invoke", "explain", "calibrate", "doctor"),
    "Recipes": ("recipes", "plan", "targets", "render", "replay"),
    "Clusters": ("cluster", "deploy", "scale", "logs", "undeploy", "iam", "review"),
    "Images and hubs": ("image", "hub"),
    "Shells and programs": ("completion", "schema"),
}


@click.group(
    cls=Commands,
    commands={name: f"hyperpd.cli.{name}" for names in _SECTIONS.values() for name in names},
    sections=_SECTIONS,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 ok, 2 wrong input, 3 does not fit, 4 not ready or refused, 5 request failed, 130 Ctrl-C."
    " Nothing is sent but what a command is for; nothing is counted or reported to anybody.",
)
@click.version_option(__version__)
def cli() -> None:
    """Prefill/decode disaggregated LLM inference for Amazon SageMaker HyperPod."""


def main() -> None:
    """Run the command line, and end with its exit code."""
    try:
        cli(prog_name="hyperpd", standalone_mode=False)
    except HyperpdError as error:
        output.error(str(error))
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        output.error("interrupted")
        sys.exit(130)

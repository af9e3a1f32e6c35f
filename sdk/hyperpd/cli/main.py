"""The `hyperpd` command. Each command's module is imported when it is asked for."""

from __future__ import annotations

import sys

import click

from hyperpd import __version__
from hyperpd.cli import output
from hyperpd.cli.commands import Commands
from hyperpd.errors import HyperpdError

_COMMANDS = (
    *("up", "status", "down", "invoke", "plan", "recipes", "render", "targets", "replay", "doctor", "image", "hub"),
    *("deploy", "scale", "logs", "undeploy", "cluster", "iam", "review", "schema", "completion"),
)


@click.group(
    cls=Commands,
    commands={name: f"hyperpd.cli.{name}" for name in _COMMANDS},
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

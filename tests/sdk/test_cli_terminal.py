"""The command line in a terminal: the Tab key, colours, a pipe that closes."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from hyperpd.deploy import TARGETS
from hyperpd.recipe import shipped

COMMAND = [sys.executable, "-c", "from hyperpd.cli.main import main; main()"]
ESCAPE = "\x1b["


@pytest.fixture
def tab(tmp_path: Path) -> object:
    """What bash offers at a Tab after these words: the printed script, sourced, with the command on the PATH."""
    command = tmp_path / "hyperpd"
    command.write_text(f"#!{sys.executable}\nfrom hyperpd.cli.main import main\nmain()\n")
    command.chmod(0o755)
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "XDG_STATE_HOME": str(tmp_path)}
    env["PYTHONPATH"] = os.pathsep.join(str(Path(one or ".").resolve()) for one in sys.path)

    def press(*words: str) -> list[str]:
        script = (
            'eval "$(hyperpd completion bash)"; compopt() { echo "files: $2"; }; COMP_WORDS=("$@");'
            ' COMP_CWORD=$(($# - 1)); _hyperpd_completion hyperpd; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        argv = ["bash", "-c", script, "bash", "hyperpd", *words]
        ran = subprocess.run(argv, capture_output=True, text=True, env=env, check=True, timeout=60)
        assert ran.stderr == ""
        return ran.stdout.split("\n")[:-1]

    return press


def test_tab_completes_commands_recipes_and_targets(tab) -> None:
    assert tab("comp") == ["completion"]
    assert tab("cluster", "sta") == ["status"]
    assert tab("plan", "tiny-cpu") == ["files: default", *(name for name in shipped() if name.startswith("tiny-cpu"))]
    assert tab("up", "--recipe", "./my") == ["files: default", ""]
    assert tab("render", "x", "--target", "") == list(TARGETS)
    assert tab("down", "nosuch") == [""]
    assert tab("completion", "") == ["bash", "zsh", "fish"]


@pytest.mark.parametrize(("shell", "word"), [("bash", "complete -o nosort"), ("zsh", "compdef"), ("fish", "complete ")])
def test_every_shell_has_its_script(shell: str, word: str) -> None:
    ran = subprocess.run([*COMMAND, "completion", shell], capture_output=True, text=True, check=True)
    assert f"_HYPERPD_COMPLETE={shell}_complete" in ran.stdout
    assert word in ran.stdout


def on_a_terminal(*argv: str, **env: str) -> str:
    """What a command writes to a terminal."""
    theirs, ours = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm"} | env
    subprocess.run([*COMMAND, *argv], stdout=ours, stderr=ours, env=environment, timeout=60)
    os.close(ours)
    said = b""
    try:
        while part := os.read(theirs, 65536):
            said += part
    except OSError:  # the other end is closed, and all is read
        pass
    finally:
        os.close(theirs)
    return said.decode()


@pytest.mark.parametrize("argv", [("plan", "tiny-cpu-1p1d"), ("plan", "nosuch")])
def test_colours_are_for_terminals_alone(argv: tuple[str, ...]) -> None:
    assert ESCAPE in on_a_terminal(*argv)
    assert ESCAPE not in on_a_terminal(*argv, NO_COLOR="1")
    assert ESCAPE not in on_a_terminal(*argv, TERM="dumb")
    piped = subprocess.run([*COMMAND, *argv], capture_output=True, text=True, env=os.environ | {"TERM": "xterm"})
    assert ESCAPE not in piped.stdout + piped.stderr


def test_a_pipe_that_closes_is_no_error() -> None:
    script = 'set -o pipefail; "$@" | head -c 1 >/dev/null'
    ran = subprocess.run(["bash", "-c", script, "bash", *COMMAND, "targets"], capture_output=True, text=True)
    assert (ran.returncode in (0, 1), ran.stderr) == (True, "")

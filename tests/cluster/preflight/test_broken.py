"""Every broken account is found and named, and the printed fix mends it."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest

from hyperpd.cluster.aws import Aws
from hyperpd.cluster.preflight import Preflight, run
from tests.cluster.files import spec
from tests.cluster.preflight import fixes
from tests.cluster.preflight.account import Account, Document, healthy
from tests.cluster.preflight.broken import CASES, Broken


def planned(aws: Account, document: Document) -> Preflight:
    """Plan as it is run: at the stand-in's own time."""
    now = datetime.fromtimestamp(aws.control.account.clock.now_s, UTC)
    return run(spec(document), Aws(document["region"]), now=now)


def test_a_right_account_has_no_findings(enter: Callable[[Account], None]) -> None:
    with Account() as aws:
        enter(aws)
        assert planned(aws, healthy(aws)).findings == ()


def mended(case: Broken, aws: Account, folder: Path, run_command: fixes.Run) -> tuple[Preflight, Preflight]:
    """What is found in a broken account, and after the fixes that are printed."""
    document = healthy(aws)
    (folder / "files").mkdir()
    document = case.breaks(aws, document, folder / "files") or document
    before = planned(aws, document)
    after = before
    for _ in range(2):  # a subnet that is made may be the next finding's
        for one in after.findings:
            if one.check not in case.also:
                document = fixes.apply(one.fix, document, run_command)
        after = planned(aws, document)
        if not after.findings:
            break
    return before, after


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_found_named_and_fixed(
    case: Broken, tmp_path: Path, enter: Callable[[Account], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Account(*case.faults, allow=case.allow) as aws:
        enter(aws)
        monkeypatch.chdir(tmp_path)
        commands = fixes.interpreter(aws)

        def command(argv: list[str]) -> str:
            if argv == ["aws", "sso", "login"]:
                monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIANEW00000000000000")
                monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # the next plan is another process
                return ""
            if (
                argv[:3] == ["aws", "eks", "update-kubeconfig"]
                or argv[0] == "git"
                or argv[:2] == ["helm", "dependency"]
            ):
                return ""
            if argv[0] == "helm":
                assert argv[1:4] == ["upgrade", "--install", "hyperpod-dependencies"]
                aws.daemonsets = Account().daemonsets
                return ""
            return commands(argv)

        before, after = mended(case, aws, tmp_path, command)
    assert_found(case, before)
    assert [one.lines() for one in after.findings] == []


def assert_found(case: Broken, before: Preflight) -> None:
    found = [one for one in before.findings if one.check not in case.also]
    assert {(one.level, one.check) for one in found} == {(case.level, case.check)}, [one.lines() for one in found]
    assert case.says in "\n".join(one.what for one in found)
    error = before.error()
    assert (error.exit_code if error else 0) == case.code


@pytest.mark.nightly
@pytest.mark.skipif("AWS_CLI" not in os.environ, reason="AWS_CLI: no aws command; make sdk-test has one")
@pytest.mark.parametrize(
    "case", [case for case in CASES if not case.faults and "plugin" not in case.check], ids=lambda case: case.name
)
def test_the_aws_cli_takes_the_printed_fix(
    case: Broken, tmp_path: Path, enter: Callable[[Account], None], monkeypatch: Any
) -> None:
    with Account(*case.faults, allow=case.allow) as aws:
        enter(aws)
        monkeypatch.chdir(tmp_path)
        _, after = mended(case, aws, tmp_path, fixes.stock(aws, tmp_path))
    assert [one.lines() for one in after.findings] == []

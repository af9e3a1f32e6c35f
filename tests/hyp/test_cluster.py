"""Stock hyp's cluster commands on the HyperPod stand-in."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.aws import Aws
from tests.fakes.hyperpod import example
from tests.hyp.conftest import CONTEXT, Shell

REGION = ("--region", "us-east-2")


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    with Aws() as aws:
        # These tests are about the control plane: whatever it names is there.
        monkeypatch.setattr(aws.stage, "refuses_create", lambda request: ())
        monkeypatch.setattr(aws.stage, "lifecycle", lambda source, script, role: None)
        yield aws


@pytest.fixture
def shell(hyp_path: Path, tmp_path: Path, aws: Aws, leaks: tuple[str, list[bytes]]) -> Iterator[Shell]:
    tools = tmp_path / "tools"
    tools.mkdir()
    kubectl = tools / "kubectl"  # hyp asks it for the context's name
    kubectl.write_text(f"#!/bin/sh\necho {CONTEXT}\n")
    kubectl.chmod(0o755)
    environment = {
        **aws.environment,
        "PATH": f"{tools}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "LANG": "C.UTF-8",
        "HTTP_PROXY": leaks[0],
        "HTTPS_PROXY": leaks[0],
    }
    yield Shell(environment, tmp_path, hyp_path)
    assert leaks[1] == [], "something left this machine's stand-ins"


def test_a_cluster_is_listed_described_and_updated(shell: Shell, aws: Aws) -> None:
    client = aws.client("sagemaker")
    client.create_cluster(**example.eks("empty", example.group(count=0)))
    client.create_cluster(**example.eks())
    aws.control.advance(3600)
    listed = shell.run("hyp", "list-cluster", *REGION, "--clusters", "empty")
    assert '"Cluster": "empty"' in listed
    described = shell.run("hyp", "describe", "cluster", "pd", *REGION)
    assert "Status: InService" in described
    assert '"InstanceGroupName": "prefill"' in described
    group = {
        "instance_group_name": "prefill",
        "instance_count": 3,
        "instance_type": "ml.p5.48xlarge",
        "execution_role": example.ROLE,
        "life_cycle_config": {"source_s3_uri": "s3://sagemaker-pd/lifecycle", "on_create": "on_create.sh"},
    }
    named = ("--cluster-name", "pd", "--instance-groups", json.dumps([group]))
    assert "has been updated" in shell.run("hyp", "update", "cluster", *named, *REGION)
    aws.control.advance(3600)
    assert len(aws.control.nodes("pd")) == 3
    assert {call.error for call in aws.calls} == {""}


def test_what_is_not_there_is_said(shell: Shell) -> None:
    assert "Cluster 'no' not found" in shell.run("hyp", "describe", "cluster", "no", *REGION, expect=1)

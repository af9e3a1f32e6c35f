"""The account's environment, an empty price cache, and AWS's models loaded once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import botocore.loaders
import botocore.session
import pytest

from tests.cluster.preflight.account import Account


class _Loader(botocore.loaders.Loader):
    """S3's model anew each time: clients rewrite its paths, which the stand-ins read."""

    def load_service_model(self, service_name: str, *given: Any, **named: Any) -> Any:
        loader = botocore.loaders.Loader() if service_name == "s3" else super()
        return loader.load_service_model(service_name, *given, **named)


@cache
def _loader() -> botocore.loaders.Loader:
    return _Loader()


@pytest.fixture(autouse=True)
def _models(monkeypatch: pytest.MonkeyPatch) -> None:
    """botocore reads eight services' models anew for each session: two seconds of each test."""
    monkeypatch.setattr(botocore.session, "create_loader", lambda search_path_string=None: _loader())
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # as in a process of its own
    monkeypatch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")  # a second of each test, and no image is asked for


@pytest.fixture
def enter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Account], None]:
    """Makes an account that of this process."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def enter(aws: Account) -> None:
        for name, value in aws.environment.items():
            monkeypatch.setenv(name, value)

    return enter

"""hyperpd cluster plan, as it is typed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hyperpd.cli.main import main
from tests.cluster.files import written
from tests.cluster.preflight.account import GPU, Account, Document, healthy
from tests.fakes.gate import Expire, Fail


@pytest.fixture
def aws(enter: Callable[[Account], None]) -> Iterator[Account]:
    with Account() as aws:
        enter(aws)
        yield aws


@pytest.fixture
def document(aws: Account) -> Document:
    return healthy(aws)


@pytest.fixture
def plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Exit code, standard output and standard error of a plan of a document."""

    def plan(document: Document, *options: str, **change: Any) -> tuple[int, str, str]:
        path = written(tmp_path, document, **change)
        monkeypatch.setattr("sys.argv", ["hyperpd", "cluster", "plan", str(path), *options])
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        return code, *capsys.readouterr()

    return plan


def test_what_is_right_shows_costs_and_what_would_be_sent(aws: Account, document: Document, plan: Any) -> None:
    code, said, _ = plan(document, "--price", f"{GPU}=50")
    assert code == 0
    assert f"cost: prefill: 2 × {GPU}: $100.00/h, $73,000/month, each $50.00/h (as you gave it;" in said
    assert "cost: $151.00/h" in said
    assert "problems: 0, not checked: 0, warnings: 0" in said
    assert "hyperpd cluster create makes it" in said
    assert not [call for call in aws.calls if call.operation.startswith(("Create", "Put", "Update", "Delete"))]


def test_problems_are_all_shown_with_their_fixes_and_the_code_of_the_first_kind(
    aws: Account, document: Document, plan: Any
) -> None:
    aws.quotas.clusters[GPU] = 2
    aws.eks.clusters["prod"]["accessConfig"] = {"authenticationMode": "CONFIG_MAP"}
    code, said, error = plan(document)
    assert code == 3
    assert said.count("problem: ") == 2
    assert "    fix:   aws service-quotas request-service-quota-increase --service-code sagemaker" in said
    assert "    fix:   aws eks update-cluster-config --name prod" in said
    assert "hyperpd cluster create makes it" not in said
    assert error == "error: problems in the way of pd: 2; nothing was changed\n"
    assert plan(document, lifecycle={"source": "s3://our-files/a", "on_create": "on_create.sh"})[0] == 2
    aws.quotas.clusters[GPU] = 8
    assert plan(document)[0] == 4


def test_a_price_that_cannot_be_had_takes_no_other_with_it(aws: Account, document: Document, plan: Any) -> None:
    aws.gate.faults.append(Fail("InvalidParameterException", operation="GetProducts"))  # of the first type
    code, said, _ = plan(document)
    assert code == 0
    assert f"2 × {GPU}: $121.00/h" in said
    assert "prices of today could not be checked: pricing:GetProducts: InvalidParameterException" in said


def test_for_programs(aws: Account, document: Document, plan: Any) -> None:
    aws.quotas.clusters[GPU] = 2
    code, said, _ = plan(document, "--json")
    found = json.loads(said)["preflight"]
    assert (code, found["ok"], found["usd_per_hour"], found["every_price_known"]) == (3, False, 182.5, True)
    (one,) = found["findings"]
    assert (one["level"], one["check"], len(one["fix"])) == ("problem", "quota", 1)
    assert [each["usd_per_hour"] for each in found["costs"]] == [121, 60.5, 1]
    aws.quotas.clusters[GPU] = 8
    code, said, _ = plan(document, "--json")
    assert (code, json.loads(said)["preflight"]["ok"], json.loads(said)["cluster"]) == (0, True, "pd")


def test_offline(aws: Account, document: Document, plan: Any) -> None:
    code, said, _ = plan(document, "--offline")
    assert code == 0
    assert aws.calls == []
    assert "unknown: AWS was not asked (--offline): credentials, permissions," in said
    assert f"no HyperPod price of {GPU} is known" in said
    plan(document)
    code, said, _ = plan(document, "--offline")
    assert "each $60.50/h (HyperPod on demand, as it was; " in said  # kept from when it was last looked up
    code, said, _ = plan(document, "--offline", region=None)
    assert "unknown: no Region is known, so no price is looked up" in said
    assert said.count("no HyperPod price is known") == 3
    assert "us-east-1" not in "".join(
        line for line in said.splitlines() if line.startswith("cost:") and "EC2" not in line
    )
    code, said, _ = plan(document, "--offline", groups={"prefill": {"instance_type": "ml.p5.48xlagre"}})
    assert (code, "neither HyperPod's API nor hyperpd knows the type" in said) == (2, True)


def test_without_usable_credentials_the_rest_is_checked_all_the_same(
    aws: Account, document: Document, plan: Any, tmp_path: Path
) -> None:
    aws.gate.faults.append(Expire(1))
    code, said, _ = plan(document)
    assert code == 4
    assert "problem: credentials have expired" in said
    assert "cost: in all not known; what has a price: $0.00/h, $0/month" in said


def test_a_price_that_is_none(aws: Account, document: Document, plan: Any) -> None:
    for given in ("p5=1", f"{GPU}", f"{GPU}=-1", f"{GPU}=x", f"{GPU}=nan", f"{GPU}=inf"):
        code, _, error = plan(document, "--offline", "--price", given)
        assert (code, "write it as ml.p5.48xlarge=60.50" in error) == (2, True)

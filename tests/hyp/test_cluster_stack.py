"""The template that stock hyp 3.12.0 makes clusters with is the one whose parameters the console's page fills in; and
groups go into its field by hand, since hyp changes the capitals of their keys."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.deploy.console_stacks import texts

DATA = Path(__file__).parents[1] / "data" / "hyp" / "cluster-stack-1.0.2.json"
TEMPLATE = """
import json
from sagemaker.hyperpod.cluster_management.hp_cluster_stack import HpClusterStack
print("ANSWER" + HpClusterStack.get_template())
"""
PARAMETERS = """
import json, sys
from sagemaker.hyperpod.cluster_management.hp_cluster_stack import HpClusterStack
stack = HpClusterStack(instance_group_settings=json.loads(sys.argv[1]))
print("ANSWER" + json.dumps({one["ParameterKey"]: one["ParameterValue"] for one in stack._create_parameters()}))
"""


def _ask(hyp_path: Path, program: str, *argv: str) -> Any:
    python = hyp_path.with_name("python")
    ran = subprocess.run([str(python), "-c", program, *argv], capture_output=True, text=True, check=True)
    return json.loads(ran.stdout.partition("ANSWER")[2])


def test_the_excerpt_is_of_this_template(hyp_path: Path) -> None:
    excerpt, template = json.loads(DATA.read_text()), _ask(hyp_path, TEMPLATE)
    assert set(excerpt["Parameters"]) == set(template["Parameters"])
    for name, one in excerpt["Parameters"].items():
        assert one.items() <= template["Parameters"][name].items()
    assert excerpt["Conditions"] == template["Conditions"]
    kept = {
        name: {key: one[key] for key in ("Type", "Condition") if key in one}
        for name, one in template["Resources"].items()
    }
    assert excerpt["Resources"] == kept


def test_hyp_itself_breaks_the_groups_which_is_why_they_are_pasted(hyp_path: Path) -> None:
    text = texts("qwen3-32b-p5-4p2d", "eks")["instance-group-settings.json"]
    given = _ask(hyp_path, PARAMETERS, text)
    (group,) = json.loads(given["InstanceGroupSettings1"])
    assert group["InstanceGroupName"] == json.loads(text)[0]["InstanceGroupName"]
    assert "Executionrole" in group
    assert "ExecutionRole" not in group
    assert "hyp changes the capitals of their keys" in " ".join(texts("qwen3-32b-p5-4p2d", "eks")["console.md"].split())

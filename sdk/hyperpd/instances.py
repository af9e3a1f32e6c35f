"""Instance facts: what a HyperPod machine of a type has.

Source: EC2 API data of 2026-08-21, compared with the constants of HyperPod's own CLI 3.12.0. Types
whose EFA count the sources disagree on (p6e-gb200), and Trainium, are left out: `find` says so.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from hyperpd.errors import RecipeError


@dataclass(frozen=True, slots=True)
class InstanceType:
    """One type. GPU memory and RAM in GiB, network in Gbit/s of the whole machine, NVMe in GB."""

    name: str
    gpus: int
    gpu: str
    gpu_gib: int
    vcpus: int
    ram_gib: int
    efa: int  # EFA devices
    network_gbit_s: float
    nvme_gb: int

    @property
    def gbit_s_per_gpu(self) -> float:
        """Network for each GPU, in Gbit/s."""
        return self.network_gbit_s / self.gpus

    def efa_with(self, gpus: int) -> int:
        """EFA devices that go with `gpus` of its GPUs: their share, whole ones."""
        return self.efa * min(gpus, self.gpus) // self.gpus


INSTANCES = (
    InstanceType("ml.g5.xlarge", 1, "A10G", 22, 4, 16, 0, 2.5, 250),
    InstanceType("ml.g5.2xlarge", 1, "A10G", 22, 8, 32, 0, 5, 450),
    InstanceType("ml.g5.8xlarge", 1, "A10G", 22, 32, 128, 1, 25, 900),
    InstanceType("ml.g5.12xlarge", 4, "A10G", 22, 48, 192, 1, 40, 3800),
    InstanceType("ml.g5.24xlarge", 4, "A10G", 22, 96, 384, 1, 50, 3800),
    InstanceType("ml.g5.48xlarge", 8, "A10G", 22, 192, 768, 1, 100, 7600),
    InstanceType("ml.g6.xlarge", 1, "L4", 22, 4, 16, 0, 2.5, 250),
    InstanceType("ml.g6.8xlarge", 1, "L4", 22, 32, 128, 1, 25, 900),
    InstanceType("ml.g6.12xlarge", 4, "L4", 22, 48, 192, 1, 40, 3760),
    InstanceType("ml.g6.24xlarge", 4, "L4", 22, 96, 384, 1, 50, 3760),
    InstanceType("ml.g6.48xlarge", 8, "L4", 22, 192, 768, 1, 100, 7520),
    InstanceType("ml.gr6.8xlarge", 1, "L4", 22, 32, 256, 1, 25, 900),
    InstanceType("ml.g6e.xlarge", 1, "L40S", 44, 4, 32, 0, 2.5, 250),
    InstanceType("ml.g6e.4xlarge", 1, "L40S", 44, 16, 128, 0, 20, 600),
    InstanceType("ml.g6e.8xlarge", 1, "L40S", 44, 32, 256, 1, 25, 900),
    InstanceType("ml.g6e.12xlarge", 4, "L40S", 44, 48, 384, 1, 100, 3800),
    InstanceType("ml.g6e.24xlarge", 4, "L40S", 44, 96, 768, 2, 200, 3800),
    InstanceType("ml.g6e.48xlarge", 8, "L40S", 44, 192, 1536, 4, 400, 7600),
    InstanceType("ml.g7.12xlarge", 2, "RTX PRO 4500", 32, 48, 192, 1, 175, 1900),
    InstanceType("ml.g7.48xlarge", 8, "RTX PRO 4500", 32, 192, 768, 2, 700, 7600),
    InstanceType("ml.g7e.8xlarge", 1, "RTX PRO 6000", 96, 32, 256, 1, 100, 1900),
    InstanceType("ml.g7e.12xlarge", 2, "RTX PRO 6000", 96, 48, 512, 1, 400, 3800),
    InstanceType("ml.g7e.24xlarge", 4, "RTX PRO 6000", 96, 96, 1024, 2, 800, 7600),
    InstanceType("ml.g7e.48xlarge", 8, "RTX PRO 6000", 96, 192, 2048, 4, 1600, 15200),
    InstanceType("ml.p4d.24xlarge", 8, "A100", 40, 96, 1152, 4, 400, 8000),
    InstanceType("ml.p4de.24xlarge", 8, "A100", 80, 96, 1152, 4, 400, 8000),
    InstanceType("ml.p5.4xlarge", 1, "H100", 80, 16, 256, 1, 100, 3800),
    InstanceType("ml.p5.48xlarge", 8, "H100", 80, 192, 2048, 32, 3200, 30400),
    InstanceType("ml.p5e.48xlarge", 8, "H200", 141, 192, 2048, 32, 3200, 30400),
    InstanceType("ml.p5en.48xlarge", 8, "H200", 141, 192, 2048, 16, 3200, 30400),
    InstanceType("ml.p6-b200.48xlarge", 8, "B200", 179, 192, 2048, 8, 3200, 30400),
    InstanceType("ml.p6-b300.48xlarge", 8, "B300", 268, 192, 4096, 16, 6400, 30400),
)
_BY_NAME = {instance.name: instance for instance in INSTANCES}


def find(name: str) -> InstanceType:
    """The facts of `name` ("ml.p5.48xlarge"). Raises RecipeError when they are not known."""
    if name in _BY_NAME:
        return _BY_NAME[name]
    near = difflib.get_close_matches(name, _BY_NAME, 1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(_BY_NAME)}"
    raise RecipeError("instance type", [f"nothing is known of {name}; {hint}"])

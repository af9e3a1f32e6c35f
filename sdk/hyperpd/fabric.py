"""What the KV path needs from the machine: the settings UCX and NIXL read from the environment.

Standard library and Python 3.9 only, no imports of ours: a bare node runs this very file.
"""

from typing import Dict

# A cut TCP link is noticed after this long instead of 240 s (measured with vLLM 0.32 and UCX over
# TCP). It has to be set on prefill and decode: on one side alone the other still waited 120 s.
UCX_TCP_USER_TIMEOUT = "5s"


def settings(backend: str, accelerator: str) -> Dict[str, str]:
    """Environment for a worker whose NIXL backend is `backend` ("UCX").

    accelerator: "cpu" moves host memory over TCP; "gpu" leaves the choice of transport to UCX.
    """
    if backend != "UCX":
        raise ValueError("backend {!r} is not known; try UCX".format(backend))
    environment = {"UCX_TCP_USER_TIMEOUT": UCX_TCP_USER_TIMEOUT}
    if accelerator == "cpu":
        # Without this UCX quietly uses shared memory between two workers of one machine, and what
        # was tried on a laptop would not be what runs between nodes.
        environment["UCX_TLS"] = "tcp"
    return environment

"""Containers that cannot be started: volumes, addresses, variables. Messages as kubelet writes them."""

from __future__ import annotations

from hyperpd.deploy.stuck import Seen, Stage
from tests.deploy.stuck.case import Case
from tests.deploy.stuck.parts import (
    ENGINES,
    event,
    starting,
    waiting,
)


def _mount(name: str, what: str, fix: str, *said: str) -> Case:
    one = starting(waiting("ContainerCreating"))
    return Case(
        name,
        Stage.UNSTARTED,
        what,
        fix,
        Seen(pods=[one], events=[event(one, "FailedMount", each, at) for at, each in enumerate(said)]),
    )


def _configured(name: str, what: str, fix: str, said: str, reason: str = "CreateContainerConfigError") -> Case:
    return Case(name, Stage.UNSTARTED, what, fix, Seen(pods=[starting(waiting(reason, said))]))


_SANDBOX = starting(waiting("ContainerCreating"))
STARTS = (
    _mount(
        "a Secret's volume",
        "no Secret keys",
        f"create secret generic keys -n {ENGINES}",
        'MountVolume.SetUp failed for volume "keys" : secret "keys" not found',
        "Unable to attach or mount volumes: unmounted volumes=[keys], timed out waiting for the condition",
    ),
    _mount(
        "a key of a Secret's volume",
        "no key keys.json",
        "keys.json",
        'MountVolume.SetUp failed for volume "keys" : references non-existent secret key: keys.json',
    ),
    _mount(
        "a certificate's volume",
        "no Secret front, with its certificate",
        f"--from-file=ca.crt; the options tls_secret (gateways) and workers_tls_secret (workers) name it; from"
        f" cert-manager: kubectl get certificate -n {ENGINES}",
        'MountVolume.SetUp failed for volume "tls" : secret "front" not found',
    ),
    _mount(
        "an authority's volume",
        "no Secret back, with the authority of the workers' certificates",
        f"create secret generic back -n {ENGINES} --from-file=ca.crt: the option workers_tls_secret",
        'MountVolume.SetUp failed for volume "workers-ca" : secret "back" not found',
    ),
    _mount(
        "a certificate without who signed it",
        "no key ca.crt",
        "of who signed it, ca.crt",
        'MountVolume.SetUp failed for volume "workers-ca" : references non-existent secret key: ca.crt',
    ),
    _mount(
        "the recipe's volume",
        "no ConfigMap recipe-414f7bbfd97a",
        "deploy again",
        'MountVolume.SetUp failed for volume "recipe" : configmap "recipe-414f7bbfd97a" not found',
    ),
    _mount(
        "a folder of the machine",
        "no folder /opt/hyperpd/data/models",
        "10-storage.sh",
        'MountVolume.SetUp failed for volume "cache" : hostPath type check failed: /opt/hyperpd/data/models is not a'
        " directory",
    ),
    _mount(
        "no CSI driver",
        "CSI driver fsx.csi.aws.com does not run",
        "aws-fsx-csi-driver",
        'MountVolume.MountDevice failed for volume "fsx" : kubernetes.io/csi: attacher.MountDevice failed to create'
        " newCsiDriverClient: driver name fsx.csi.aws.com not found in the list of registered CSI drivers",
    ),
    _mount(
        "a volume elsewhere",
        "attached to another node",
        "ReadOnlyMany",
        'Multi-Attach error for volume "pvc-1" Volume is already exclusively attached to one node and can\'t be'
        " attached to another",
    ),
    _mount(
        "FSx does not answer",
        "FSx for Lustre file system does not answer",
        "TCP 988",
        'MountVolume.SetUp failed for volume "fsx" : rpc error: code = Internal desc = Could not mount: mount failed:'
        " exit status 5 Output: mount.lustre: mount 10.0.1.2@tcp:/abc at /models failed: Input/output error Is the MGS"
        " running?",
    ),
    _mount(
        "mounting fails",
        "mounting fails: Permission denied",
        "describe pv",
        "rpc error: code = Internal desc = mount failed: exit status 32 Output: mount: Permission denied",
    ),
    _mount("words nobody knows", "a volume is not mounted", "kubectl describe pod", "rpc error: who knows"),
    Case(
        "no address",
        Stage.UNSTARTED,
        "no address is free",
        "larger subnet",
        Seen(
            pods=[_SANDBOX],
            events=[
                event(
                    _SANDBOX,
                    "FailedCreatePodSandBox",
                    "Failed to create pod sandbox: rpc error:"
                    ' code = Unknown desc = failed to setup network for sandbox: plugin type="aws-cni"'
                    " failed (add): add cmd: failed to assign an IP address to container",
                )
            ],
        ),
    ),
    Case(
        "no sandbox",
        Stage.UNSTARTED,
        "sandbox cannot be made",
        "kubectl describe pod",
        Seen(pods=[_SANDBOX], events=[event(_SANDBOX, "FailedCreatePodSandBox", "Failed to create pod sandbox: oh")]),
    ),
    _configured("a Secret in variables", "no Secret hf-token", "hf_token_secret", 'secret "hf-token" not found'),
    _configured(
        "a key of it",
        f"Secret {ENGINES}/hf-token has no key token",
        "kubectl edit Secret",
        f"couldn't find key token in Secret {ENGINES}/hf-token",
    ),
    _configured("a ConfigMap in variables", "no ConfigMap more", "make others", 'configmap "more" not found'),
    _configured(
        "root",
        "image runs as root",
        "10001",
        'container has runAsNonRoot and image will run as root (pod: "prefill", container: prefill)',
    ),
    _configured(
        "no such command",
        "no command hyperpd-node",
        "--set image=",
        "failed to create containerd task: failed to"
        ' create shim task: OCI runtime create failed: exec: "hyperpd-node": executable file not found in $PATH',
        "RunContainerError",
    ),
    _configured("words nobody knows", "cannot be made", "kubectl describe pod", "strange", "CreateContainerError"),
)

"""Why a pod's volumes do not come."""

from __future__ import annotations

from collections.abc import Iterator

from hyperpd.deploy.stuck.cause import Cause, Object, Seen, Sign, Stage, name, read

SIGNS = (
    Sign(
        r'volume "tls" : secret "(?P<gone>[^"]+)" not found',
        "there is no Secret {gone}, with its certificate",
        "kubectl create secret generic {gone} -n {namespace} --type=kubernetes.io/tls --from-file=tls.crt"
        " --from-file=tls.key --from-file=ca.crt; the options tls_secret (gateways) and workers_tls_secret (workers)"
        " name it; from cert-manager: kubectl get certificate -n {namespace}",
    ),
    Sign(
        r'volume "workers-ca" : secret "(?P<gone>[^"]+)" not found',
        "there is no Secret {gone}, with the authority of the workers' certificates",
        "kubectl create secret generic {gone} -n {namespace} --from-file=ca.crt: the option workers_tls_secret names it"
        " in both namespaces, the workers' and this",
    ),
    Sign(
        r'secret "(?P<gone>[^"]+)" not found',
        "there is no Secret {gone}",
        "kubectl create secret generic {gone} -n {namespace} --from-file=…; the options keys_secret and hf_token_secret"
        " name those of hyperpd",
    ),
    Sign(
        r'configmap "(?P<gone>[^"]+)" not found',
        "there is no ConfigMap {gone}",
        "deploy again: hyperpd's documents bring the recipe's; make others in {namespace}",
    ),
    Sign(
        r"references non-existent secret key: (?P<key>\S+)",
        "the Secret has no key {key}",
        "the key file is called keys.json there, a Hugging Face token is called token, a certificate tls.crt with"
        " tls.key and, of who signed it, ca.crt",
    ),
    Sign(
        r"hostPath type check failed: (?P<folder>\S+) is not a directory",
        "the machine has no folder {folder}",
        "make it on every machine, of user 10001 (lifecycle scripts, steps/10-storage.sh), or change the path in the"
        " recipe or the option cache_folder",
    ),
    Sign(
        r"driver name (?P<driver>\S+) not found in the list of registered CSI drivers",
        "the CSI driver {driver} does not run on its node",
        "EKS add-on aws-fsx-csi-driver, aws-mountpoint-s3-csi-driver or aws-ebs-csi-driver; its pods have to tolerate"
        " the node's taints: kubectl get pods -A -o wide | grep csi",
    ),
    Sign(
        r"Multi-Attach error",
        "its volume is attached to another node and takes one only",
        "a volume for many (FSx, access mode ReadOnlyMany), or wait until the other pod is gone",
    ),
    Sign(
        r"(mount\.lustre|lustre).*(timed out|Input/output error|Is the MGS running|Cannot send after transport)",
        "its FSx for Lustre file system does not answer",
        "security groups of file system and nodes let TCP 988 and 1018-1023 through both ways; both in one VPC",
    ),
    Sign(
        r"mount failed: .*(?P<said>Permission denied|access denied|No such file or directory|wrong fs type[^.]*)",
        "mounting fails: {said}",
        "file system id, mount name and rights in the PersistentVolume: kubectl describe pv",
    ),
)


def of_pod(pod: Object, seen: Seen) -> Iterator[Cause]:
    """By kubelet's events. For a pod whose containers wait to be made."""
    who, namespace = (name(pod, "Pod"),), str(pod["metadata"].get("namespace", ""))
    events = seen.of(pod, "FailedMount", "FailedAttachVolume", "FailedMapVolume")
    messages = [" ".join(str(event.get("message", "")).split()) for event in reversed(events)]
    if not messages:
        return
    signs = [Sign(one.words, one.what, one.fix.replace("{namespace}", namespace)) for one in SIGNS]
    # The newest often says only that time ran out; the one before it, what for.
    if sign := next(filter(None, (read(signs, message) for message in messages)), None):
        yield Cause(Stage.UNSTARTED, who, f"a volume is not mounted: {sign.what}", "", sign.fix)
        return
    fix = f"kubectl describe pod {pod['metadata']['name']} -n {namespace}; kubectl get pvc -n {namespace}"
    yield Cause(Stage.UNSTARTED, who, "a volume is not mounted", messages[0], fix)

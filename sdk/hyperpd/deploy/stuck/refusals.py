"""What the API does not take: objects that are applied, and pods that controllers try to make."""

from __future__ import annotations

import re

from hyperpd.deploy.apply import NOT_SERVED
from hyperpd.deploy.stuck.cause import Cause, Object, Sign, Stage, name, read
from hyperpd.errors import CloudError

# The group of a kind → what brings it. Names of add-ons as in cluster/preflight/addons.py.
_BRINGS = {
    "leaderworkerset.x-k8s.io": "LeaderWorkerSet's controller: helm install lws oci://registry.k8s.io/lws/charts/lws"
    " --namespace lws-system --create-namespace",
    "inference.sagemaker.aws.amazon.com": "HyperPod's inference operator: EKS add-on"
    " amazon-sagemaker-hyperpod-inference (EKS console, the cluster, Add-ons), or --target kubernetes",
    "keda.sh": "KEDA (helm repo add kedacore https://kedacore.github.io/charts; helm install keda kedacore/keda"
    " --namespace keda --create-namespace), or a recipe without autoscaling",
    "kueue.x-k8s.io": "Kueue: EKS add-on amazon-sagemaker-hyperpod-taskgovernance, or without the option queue",
    "monitoring.coreos.com": "the Prometheus Operator, which has PodMonitors and PrometheusRules",
}
_WEBHOOK = r'admission webhook "(?P<who>[^"]+)" denied the request'
SIGNS = (
    Sign(
        r"exceeded quota: (?P<quota>[^,]+), requested: (?P<asked>.+), used: (?P<used>.+), limited: (?P<limit>.+)",
        "ResourceQuota {quota} is used up: asks for {asked}; used {used} of {limit}",
        "free what another workload of the namespace holds, raise the quota (kubectl describe resourcequota {quota}"
        " -n {namespace}), or deploy fewer replicas",
    ),
    Sign(
        r"failed quota: (?P<quota>[^:]+): must specify (?P<missing>.+?)( for: .+)?$",
        "ResourceQuota {quota} wants every pod to say {missing}",
        "a LimitRange with defaults for {missing} in {namespace}, or no quota for them there",
    ),
    Sign(
        r"forbidden: \[?(?P<said>(maximum|minimum) [a-z0-9./-]+ usage per (Container|Pod) is .+)",
        "a LimitRange of {namespace} does not allow its size: {said}",
        "change the LimitRange (kubectl get limitrange -n {namespace}), or choose another namespace: --set namespace=…",
    ),
    Sign(
        r'violates PodSecurity "(?P<level>[^"]+)": (?P<said>.+)',
        "the namespace's Pod Security level {level} forbids it: {said}",
        "kubectl label namespace {namespace} pod-security.kubernetes.io/enforce=privileged --overwrite (IPC_LOCK and"
        " folders of machines need it), or choose another namespace",
    ),
    Sign(
        r'failed calling webhook "(?P<who>[^"]+)": (?P<said>.+)',
        "the admission webhook {who} does not answer, and nothing passes without it: {said}",
        "look at the pods behind it: kubectl get validatingwebhookconfigurations,mutatingwebhookconfigurations -o wide;"
        " restart its controller",
    ),
    Sign(
        _WEBHOOK.replace('[^"]+', r"[^\"]*sagemaker[^\"]*") + r":? ?(?P<said>.*)",
        "the inference operator refuses it: {said}",
        "change what it names; hyperpd render RECIPE --target inference_operator checks the rules that are documented",
    ),
    Sign(
        _WEBHOOK + r":? ?(?P<said>.*)",
        "the admission webhook {who} refuses it: {said}",
        "change what it names, or ask who runs {who} for an exception in {namespace}",
    ),
    Sign(
        r"ValidatingAdmissionPolicy '(?P<who>[^']+)'.* denied request: (?P<said>.*)",
        "the cluster's admission policy {who} refuses it: {said}",
        "change what it names, or ask who runs the cluster for an exception in {namespace}",
    ),
    Sign(
        r'serviceaccount "(?P<account>[^"]+)" not found',
        "there is no ServiceAccount {account}",
        "deploy again: hyperpd's documents bring it",
    ),
    Sign(
        r"no PriorityClass with name (?P<class>\S+) was found",
        "there is no PriorityClass {class}",
        "kubectl get priorityclass; name one that is there, or make it",
    ),
    Sign(
        r'namespaces "(?P<gone>[^"]+)" not found',
        "there is no namespace {gone}",
        "deploy again: hyperpd's documents bring it",
    ),
    Sign(
        r"is being terminated|NamespaceTerminating",
        "its namespace is being deleted",
        "wait until kubectl get namespace {namespace} finds none, then deploy again; a finalizer that holds it is in"
        " kubectl get namespace {namespace} -o yaml",
    ),
    Sign(
        r'(?P<said>User "[^"]+" cannot .+)',
        "you have no right to it: {said}",
        "an access entry of the EKS cluster for you, with a policy as AmazonEKSClusterAdminPolicy: aws eks"
        " associate-access-policy",
    ),
)


def refused(body: Object, error: CloudError) -> Cause:
    """Why the API did not take an object that was applied."""
    if error.code == NOT_SERVED:
        group = str(body["apiVersion"]).partition("/")[0]
        return Cause(
            Stage.REFUSED,
            (name(body),),
            f"the cluster does not serve {body['kind']} of {body['apiVersion']}: its definition (CRD) is not installed,"
            " or in another version",
            "",
            f"install {_BRINGS.get(group, f'what brings {group}')}; what is there: kubectl get crd | grep {group}",
        )
    return of_message(name(body), body["metadata"].get("namespace", ""), str(error), Stage.REFUSED)


def of_message(who: str, namespace: str, message: str, stage: Stage) -> Cause:
    """Why a controller, or we, may not make an object, from the API's words."""
    sign = read([Sign(one.words, *_placed(namespace, one.what, one.fix)) for one in SIGNS], message)
    if sign:
        return Cause(stage, (who,), sign.what, "", sign.fix)
    # Each pod that is tried has another name.
    words = re.sub(r'(pods|Pod) "?[a-z0-9.-]+-[a-z0-9]{5}"? ', r"\1 ", message)
    return Cause(stage, (who,), "the API refuses it", words, "change what it names, then deploy again")


def _placed(namespace: str, *texts: str) -> tuple[str, str]:
    first, second = (text.replace("{namespace}", namespace or "default") for text in texts)
    return first, second

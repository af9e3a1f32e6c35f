"""Why a recipe cannot be rendered with these options, beyond fields that are always refused."""

from __future__ import annotations

from collections.abc import Iterator

from hyperpd import instances
from hyperpd.deploy.kubernetes import machines, storage
from hyperpd.deploy.kubernetes.fleet import GATED, Fleet
from hyperpd.deploy.target import written
from hyperpd.errors import CapacityError, RecipeError
from hyperpd.fabric import HUGEPAGES_MIB
from hyperpd.recipe import Role


def problems(fleet: Fleet) -> Iterator[str]:
    """Every problem, each with the field or option it is about."""
    unknown = list(_unknown_machines(fleet))
    yield from unknown
    yield from _options(fleet)
    yield from _paths(fleet)
    if unknown:
        return  # the others look at machines
    if fleet.options.hugepages_mib and not any(fleet.efa(role) for role in fleet.recipe.roles()):
        yield "hugepages_mib: no worker uses EFA"
    elif fleet.options.hugepages_mib and fleet.options.hugepages_mib < HUGEPAGES_MIB:
        yield f"hugepages_mib: below {HUGEPAGES_MIB} EFA uses none of them; give as much, or leave it out"
    for role in fleet.recipe.roles():
        yield from _worker(fleet, role)
    if fleet.local:
        yield from _local(fleet)
        if fleet.options.llm_d:
            yield "kv_transfer.fabric: local puts all workers into one pod, and llm-d chooses among pods; try efa"
    yield from _disk(fleet)


def _unknown_machines(fleet: Fleet) -> Iterator[str]:
    for role, spec in fleet.recipe.roles().items():
        try:
            if spec.instance_type and fleet.recipe.accelerator == "gpu":
                instances.find(spec.instance_type)
        except RecipeError as error:
            yield from (f"{role}.instance_type: {problem}" for problem in error.problems)


def _options(fleet: Fleet) -> Iterator[str]:
    recipe, options = fleet.recipe, fleet.options
    if not (options.image or recipe.image):
        yield "image: the recipe names none; give --set image=…, or write it there (hyperpd image mirror)"
    keys = recipe.gateway.auth == "keys"
    if keys and not options.keys_secret:
        yield "gateway.auth: keys needs the Secret with the key file; give --set keys_secret=…"
    if options.keys_secret and not keys:
        yield "keys_secret: the recipe says gateway.auth: none, so nobody would need a key"
    yield from _workers_tls(fleet)
    if options.hf_token_secret and not fleet.from_hub:
        yield "hf_token_secret: nothing of this recipe comes from Hugging Face"
    if fleet.gated and not options.hf_token_secret:
        yield f"model.huggingface: {GATED}; give --set hf_token_secret=…"
    scaled = [role for role, spec in recipe.roles().items() if spec.autoscaling]
    if scaled and not options.prometheus and not fleet.local:
        yield f"{scaled[0]}.autoscaling: KEDA scales by metrics; give --set prometheus=http://…"
    if options.prometheus and not scaled:
        yield "prometheus: no role has autoscaling, so nobody would ask it"
    managed = recipe.prefill and recipe.prefill.kv_tiers and recipe.prefill.kv_tiers.managed
    if managed and options.platform == "eks":
        yield "prefill.kv_tiers.managed: HyperPod's nodes have that storage, plain EKS has not; try memory_gib"
    if recipe.fabric == "infiniband" and not recipe.aggregated:
        yield "kv_transfer.fabric: neither HyperPod nor EKS machines have InfiniBand; try efa"


def _workers_tls(fleet: Fleet) -> Iterator[str]:
    if not fleet.options.workers_tls_secret:
        return
    if fleet.recipe.aggregated:
        yield "workers_tls_secret: an aggregated worker has a front of its own, and the engine behind it plain HTTP"
    elif fleet.local:
        yield "workers_tls_secret: with kv_transfer.fabric: local workers are in the gateway's pod; try tls_secret"
    if fleet.options.llm_d:
        yield "workers_tls_secret: llm-d asks workers by plain HTTP"


def _paths(fleet: Fleet) -> Iterator[str]:
    relative = {field: path for field, path in storage.paths(fleet).items() if not path.startswith("/")}
    yield from (f"{field}: {path} is not absolute, and pods have no home" for field, path in relative.items())
    if (
        fleet.recipe.model.claim
        and "model.path" not in relative
        and storage.hidden(folder := storage.claim_folder(fleet))
    ):
        yield f"model.path: the claim would be mounted at {folder}, which the image needs; try /models/…"
    for field, path in storage.paths(fleet).items():
        below_tmp = path.startswith("/tmp/") and field.endswith("kv_tiers.disk")
        if path.startswith("/") and storage.hidden(path):
            yield f"{field}: {path} hides what the image has; give a folder below it"
        elif path.startswith("/tmp/") and not below_tmp:
            yield f"{field}: /tmp is the pod's own; give a folder of the machines"


def _worker(fleet: Fleet, role: Role) -> Iterator[str]:
    recipe, spec = fleet.recipe, fleet.recipe.role(role)
    parallel, machine = spec.parallel, fleet.machine(role)
    if recipe.accelerator == "cpu":
        return
    needs_efa = recipe.fabric == "efa" and recipe.on_fabric(role)
    if machine is None:
        if needs_efa or parallel.nodes > 1:
            yield f"{role}.instance_type: missing; it says how many GPUs and EFA devices a machine has"
        return
    if parallel.per_node > machine.gpus:
        yield f"{role}.parallel: {parallel.per_node} GPUs on one machine, {machine.name} has {machine.gpus}"
        return
    if parallel.nodes > 1 and parallel.per_node < machine.gpus:
        yield (
            f"{role}.parallel.nodes: a worker over several machines takes all GPUs of each, or two of its parts could"
            f" meet on one; {machine.name} has {machine.gpus}, this takes {parallel.per_node}"
        )
    if needs_efa and not machine.efa:
        if not recipe.kv_transfer.allow_tcp:
            yield f"{role}.instance_type: {machine.name} has no EFA; try another, or kv_transfer.fabric: tcp"
    elif needs_efa and not machine.efa_with(parallel.per_node):
        yield (
            f"{role}.parallel: a pod takes whole EFA devices, and {machine.name} has {machine.efa} for {machine.gpus}"
            f" GPUs: pods of {parallel.per_node} would leave GPUs without one; raise tensor or data"
        )
    if spec.kv_tiers and spec.kv_tiers.memory_gib and not fleet.local:
        yield from _tier(role, spec.kv_tiers.memory_gib, machines.share(fleet, role))


def _local(fleet: Fleet) -> Iterator[str]:
    recipe = fleet.recipe
    types = {spec.instance_type for spec in recipe.roles().values()}
    if len(types) > 1:
        yield f"decode.instance_type: with kv_transfer.fabric: local all workers are on one machine; found {len(types)}"
        return
    for role, spec in recipe.roles().items():
        if spec.autoscaling:
            yield f"{role}.autoscaling: with kv_transfer.fabric: local all workers are in one pod; remove it"
        if spec.parallel.nodes > 1:
            yield f"{role}.parallel.nodes: with kv_transfer.fabric: local all workers are on one machine"
    if "gateway.replicas" in written(recipe):
        yield "gateway.replicas: with kv_transfer.fabric: local the gateway is in the workers' pod, once; remove it"
    try:
        fleet.on_one_machine()
    except CapacityError as error:
        yield f"kv_transfer.fabric: local, but {error}"
        return
    tiers = sum(
        s.replicas * s.kv_tiers.memory_gib for s in recipe.roles().values() if s.kv_tiers and s.kv_tiers.memory_gib
    )
    yield from _tier("prefill", tiers, machines.share_of_all(fleet))


def _disk(fleet: Fleet) -> Iterator[str]:
    """Each pod without a folder of the machine downloads the model for itself."""
    each = storage.downloads_gib(fleet)
    advice = "try --set cache_folder=…, or model.path, model.claim or model.s3"
    if each > storage.ROOT_GIB:
        needed = f"{each} GiB of its machine's root volume needed, {storage.ROOT_GIB} available"
        yield f"model.huggingface: a pod downloads it for itself: {needed}; {advice}"
        return
    for name, count in machines.most_pods(fleet).items():
        if each * count > storage.ROOT_GIB:
            needed = f"{each * count} GiB of its root volume needed, {storage.ROOT_GIB} available"
            yield f"model.huggingface: {count} pods of one {name} download it, each for itself: {needed}; {advice}"


def _tier(role: Role, memory_gib: float, share: machines.Share) -> Iterator[str]:
    if share.memory_limited and memory_gib > share.memory_gib / 2:
        yield (
            f"{role}.kv_tiers.memory_gib: {memory_gib:g} GiB, more than half of the {share.memory_gib} GiB of its pod;"
            " the engine loads its model there, too"
        )

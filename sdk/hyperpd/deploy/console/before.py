"""What has to be there before the first stack, and how to make an EKS cluster that is not."""

from __future__ import annotations

from collections.abc import Iterator

from hyperpd.deploy.console import groups, hosted, links, stock
from hyperpd.deploy.console.site import UNSEEN, Site


def quotas(site: Site) -> dict[str, int]:
    """Name of each quota that is used → how much of it."""
    found: dict[str, int] = {}
    for _, kind, count in groups.nodes(site):
        name = f'"{kind} for cluster usage"'
        found[name] = found.get(name, 0) + count
    if hosted.made(site):
        found[f'"{hosted.endpoint(site).instance_type} for endpoint usage", for an endpoint'] = 1
    return found


def section(site: Site) -> Iterator[str]:
    """Step 0."""
    yield "## 0. Before"
    yield ""
    entries = ", access entries (eks:CreateAccessEntry)" if site.eks else ""
    yield "- Your own rights: to make stacks and what is in them, roles with names of their own (iam:CreateRole,"
    yield f"  iam:PassRole){entries} among it."
    yield "- Service Quotas, Amazon SageMaker, at least:"
    yield from (f"  - {quota}: {count}" for quota, count in quotas(site).items())
    yield "- VPC, Managed prefix lists: the row whose name ends in `.s3`; its ID is what `S3PrefixListId` wants."
    if site.eks:
        yield from _needed_of_eks(site)
    if site.recipe.model.huggingface:
        yield f"- `{site.recipe.model.huggingface}` comes from Hugging Face at each start, without a"
        yield "  token: a gated model is refused there."
    yield ""
    if stock.known(site):
        yield from _eks_cluster(site)


def _needed_of_eks(site: Site) -> Iterator[str]:
    yield "- Add-ons come from registries of AWS' accounts: nodes may pull from those, and from this account's"
    yield "  registry the image of step 3 and no other."
    yield "- To see Pods in step 5: an access entry of your own (EKS, the cluster, Access; AmazonEKSAdminViewPolicy),"
    yield f"  and eks:AccessKubernetesApi. Who has neither sees the answer of step 6 all the same. {UNSEEN}"
    yield "- An EKS cluster, authentication mode `API` or `API_AND_CONFIG_MAP`, API server endpoint access"
    yield "  Public, or Public and private, with what HyperPod needs on it (device plugins for GPUs and EFA, health"
    yield "  monitoring), and no HyperPod cluster on it yet." + (
        " Below is how to make one." if stock.known(site) else ""
    )
    yield "- EKS, the cluster, Networking: VPC, and Cluster security group. A private subnet of that VPC in the zone"
    yield "  where your capacity is, with room for about 81 addresses a node."
    if site.options.leader_worker_set:
        yield "- On it the controller of LeaderWorkerSet: rendered with `leader_worker_set=true`, this page takes it to"
        yield "  be there. It is no add-on of EKS, and no click installs it."
    if site.recipe.model.s3:
        yield f"- The model's files below `{site.recipe.model.s3}`, in a bucket of this account, and the add-on Amazon"
        yield f"  EKS Pod Identity Agent: EKS, the cluster, Add-ons, Get more add-ons. {UNSEEN}"


def _eks_cluster(site: Site) -> Iterator[str]:
    yield "### No EKS cluster yet"
    yield ""
    yield "AWS's own stack, the one that `hyp` uses, makes one with VPC, subnets and HyperPod's add-ons; filled in so"
    yield f"that it makes no HyperPod cluster, no role of nodes and no bucket. {UNSEEN}"
    yield ""
    yield f"    {links.quick_create(site, stock.template_url(site), site.stack('eks'), stock.eks_cluster(site))}"
    yield ""
    yield "`AvailabilityZoneIds`: IDs of zones of your Region, as in `use1-az1,use1-az2`, that of your capacity among"
    yield "them. Leave the rest. Tick all boxes below Capabilities. Create stack."
    yield ""
    yield f"Shows: CREATE_COMPLETE within 40 minutes; under EKS, Clusters, `{site.stack('eks')}` Active. {UNSEEN}"
    yield ""

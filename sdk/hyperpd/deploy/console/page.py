"""console.md: what to click, what to fill in, and what each screen should show; and the instance groups to paste."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from hyperpd.deploy.console import cluster, endpoint, groups, hosted, links, serve, troubles
from hyperpd.deploy.console.site import Site
from hyperpd.deploy.kubernetes.options import ENGINES_SUFFIX
from hyperpd.deploy.target import Document

FILE, PASTE_FILE = "console.md", "instance-groups.json"
_SEEN = "[unverified]"


def document(site: Site) -> Document:
    """The page."""
    return Document(FILE, "", "\n".join([*_page(site), ""]))


def pasted(site: Site) -> Document:
    """SageMaker's InstanceGroups, as values."""
    return Document(PASTE_FILE, "", json.dumps(groups.pasted(site), indent=2) + "\n")


def urls(site: Site) -> dict[str, str]:
    """Template → the address that opens the page of its stack, filled in."""
    options = site.options
    files = {"Bucket": options.bucket, "Prefix": options.prefix}
    where = {
        "VpcId": options.vpc_id,
        "SubnetId": options.subnet_id,
        "RouteTableId": options.route_table_id,
        "S3PrefixListId": options.s3_prefix_list_id,
        "ExtraSecurityGroupId": options.extra_security_group_id,
        "TrainingPlanArn": options.training_plan_arn,
    }
    eks = {"EksClusterArn": options.eks_cluster_arn}
    if site.eks:
        where |= {**eks, "EksSecurityGroupId": options.eks_security_group_id}
    else:
        where["AvailabilityZone"] = options.availability_zone
    found = {cluster.CLUSTER_FILE: links.quick_create(site, cluster.CLUSTER_FILE, site.stack(), files | where)}
    if hosted.made(site):
        given = files if hosted.alone(site) else {}
        found[endpoint.FILE] = links.quick_create(site, endpoint.FILE, site.stack("endpoint"), given)
    if site.eks:
        found[serve.FILE] = links.quick_create(site, serve.FILE, site.stack("serve"), eks)
    return found


def quotas(site: Site) -> dict[str, int]:
    """Name of each quota that is used → how much of it."""
    found: dict[str, int] = {}
    for _, kind, count in groups.machines(site):
        name = f'"{kind} for cluster usage"'
        found[name] = found.get(name, 0) + count
    if hosted.made(site):
        found[f'"{hosted.endpoint(site).instance_type} for endpoint usage", for an endpoint'] = 1
    return found


def request(site: Site) -> dict[str, Any]:
    """What to send first."""
    return {
        "model": site.recipe.model.name,
        "messages": [{"role": "user", "content": "Name three rivers."}],
        "max_tokens": 32,
    }


def _page(site: Site) -> Iterator[str]:
    recipe, options = site.recipe, site.options
    yield f"# {recipe.name}, by clicks"
    yield ""
    yield f"Recipe digest: sha256 {site.digest}. Region {options.region}, bucket `{options.bucket}`."
    yield ""
    yield "**Nobody has tried this page on a live account yet.** What a screen shows is written down from documentation"
    yield f"and marked {_SEEN}; names of buttons may differ. The templates are checked offline."
    yield ""
    yield "This does not begin with an empty account: step 0 says what has to be there, some of it made in a terminal."
    yield ""
    yield "Nodes of the cluster, billed from the moment they start until the stack is deleted:"
    yield ""
    yield "| instance group | type | nodes |"
    yield "|---|---|---|"
    yield from (f"| {name} | {kind} | {count} |" for name, kind, count in groups.machines(site))
    yield ""
    if hosted.made(site):
        yield f"All workers fit on one {site.capacity.roles[0].instance.name}. For a SageMaker endpoint alone, with"
        yield "no cluster,"
        yield "do steps 1, 2 and 4a."
        yield ""
    yield from _needed(site)
    yield from _bucket(site)
    yield from _cluster(site)
    if hosted.made(site):
        yield from _endpoint(site)
    if site.eks:
        yield from _serve(site)
    elif not hosted.made(site):
        yield "## 4. Serving"
        yield ""
        yield "Slurm starts workers from jobs, and jobs are submitted in a terminal: **the clicks end here.** With"
        yield "`--set orchestrator=eks` they go on to a served request."
        yield ""
    yield from troubles.section(site)
    yield from _end(site)


def _needed(site: Site) -> Iterator[str]:
    yield "## 0. Before"
    yield ""
    yield "- Service Quotas, Amazon SageMaker, at least:"
    yield from (f"  - {quota}: {count}" for quota, count in quotas(site).items())
    yield f"- The image `{site.image}` in ECR, in the stacks' own Region."
    yield "  Who has a terminal puts it there: `hyperpd image mirror`."
    yield "- VPC, Managed prefix lists: the row whose name ends in `.s3`; its ID is what `S3PrefixListId` wants."
    if site.eks:
        yield "- Add-ons come from registries of AWS' accounts: nodes may pull from those, and from this account's"
        yield "  registry the image above and no other."
        yield "- An EKS cluster, authentication mode `API` or `API_AND_CONFIG_MAP`, API server endpoint access"
        yield "  Public, or Public"
        yield "  and private, with what HyperPod needs on it (device plugins for GPUs and EFA, health monitoring). The"
        yield "  console's own HyperPod page makes one that has it: SageMaker AI, HyperPod clusters, Create HyperPod"
        yield f"  cluster, Orchestrated by Amazon EKS. {_SEEN}"
        yield "  It makes a HyperPod cluster, too; whether one EKS cluster takes a second, that of step 3, is"
        yield f"  unverified. {_SEEN}"
        yield "- EKS, the cluster, Networking: VPC, and Cluster security group. A private subnet of that VPC in"
        yield "  the zone where"
        yield "  your capacity is, with room for about 81 addresses a node."
        if any(spec.parallel.nodes > 1 for spec in site.recipe.roles().values()):
            yield "- A worker of this recipe spans nodes: the controller of LeaderWorkerSet has to be on the"
            yield "  cluster. There is"
            yield "  no EKS add-on known for it: somebody with a terminal installs it, once."
    if site.recipe.model.huggingface:
        yield f"- `{site.recipe.model.huggingface}` comes from Hugging Face at each start, without a token: a gated"
        yield "  model is"
        yield "  refused there."
    yield ""


def _bucket(site: Site) -> Iterator[str]:
    options = site.options
    yield "## 1. The bucket"
    yield ""
    yield f"1. Open {links.page(site, 'cloudformation', '#/stacks/create')}"
    yield f"2. Choose an existing template, Upload a template file, Choose file: `{cluster.BUCKET_FILE}`. Next."
    yield f"3. Stack name `{site.stack('bucket')}`; `Bucket` is filled in: `{options.bucket}`. Next, Next, Submit."
    yield ""
    yield f"Shows: the stack's status CREATE_COMPLETE, within two minutes. {_SEEN}"
    yield ""
    yield "## 2. The files"
    yield ""
    yield f"1. Open {links.page(site, 's3', '')} and in it the bucket `{options.bucket}`. Upload."
    top = options.prefix.split("/")[0]
    yield f"2. Add folder: `upload/{top}`, from the folder this page is in. Upload."
    yield ""
    yield f"Shows: a list with Status Succeeded; `{site.key('lifecycle/on_create.sh')}` is one of them. {_SEEN}"
    yield ""
    if hosted.made(site) and (made := hosted.endpoint(site)).carries_recipe and (place := made.bucket_and_prefix):
        bucket, folder = place
        yield "For the endpoint the recipe travels with the model's files:"
        yield f"upload `{hosted.BESIDE}/{made.recipe_key}` to `s3://{bucket}/{folder}`, beside them."
        yield ""
    yield f"In a terminal it would be `aws s3 cp --recursive upload/ s3://{options.bucket}/ --region {options.region}`."
    yield ""


def _cluster(site: Site) -> Iterator[str]:
    eks = site.eks
    yield "## 3. The cluster"
    yield ""
    yield "Open this address; it is the last page of Create stack, filled in:"
    yield ""
    yield f"    {urls(site)[cluster.CLUSTER_FILE]}"
    yield ""
    yield "| field | what to fill in |"
    yield "|---|---|"
    for name, meaning in _fields(cluster.cluster(site)):
        yield f"| {name} | {meaning} |"
    yield ""
    yield 'Tick "I acknowledge that AWS CloudFormation might create IAM resources with custom names". Create stack.'
    yield ""
    yield "Shows: `Cluster` CREATE_IN_PROGRESS after about three minutes, and CREATE_COMPLETE after 10 to 40"
    yield f"more. {_SEEN}"
    yield ""
    yield f"Then open {links.page(site, 'sagemaker', '#/cluster-management')} and in it `{site.stack()}`."
    yield ""
    yield f"Shows: Status InService, and under Instances every node Running. {_SEEN}"
    yield ""
    yield "### Or from the pasted instance groups"
    yield ""
    yield "For the console's own page (or a colleague's request): create the stack above with `CreateCluster`"
    yield "= no; its Outputs"
    yield f"have the role, the security group and the subnet. `{PASTE_FILE}` is the member InstanceGroups of the API's"
    yield "CreateCluster, and held to its model. Whether a page of the console takes it as it is, and in which field,"
    yield f"nobody has looked up on an account. {_SEEN}"
    yield "With `--set account=` its ExecutionRole is"
    yield "that of the stack;"
    yield "without, 111122223333 stands for your account."
    if eks:
        yield "SageMaker AI, HyperPod clusters, Create HyperPod cluster, Orchestrated by Amazon EKS, Custom setup;"
        yield "VPC, subnet,"
        yield "security groups and EKS cluster as above. " + _SEEN
    else:
        yield "SageMaker AI, HyperPod clusters, Create HyperPod cluster, Orchestrated by Slurm, Custom setup; VPC,"
        yield "subnet and"
        yield "security group as above. " + _SEEN
    yield ""


def _endpoint(site: Site) -> Iterator[str]:
    yield "## 4a. A SageMaker endpoint of one instance"
    yield ""
    yield "Needs no cluster: all workers and the gateway are one container on an instance of the endpoint's own."
    yield ""
    yield f"    {urls(site)[endpoint.FILE]}"
    yield ""
    yield 'Tick "I acknowledge that AWS CloudFormation might create IAM resources". Create stack.'
    yield ""
    yield f"Shows: `Endpoint` CREATE_IN_PROGRESS for as long as the model loads, then CREATE_COMPLETE. {_SEEN}"
    yield ""
    yield "The request: SageMaker AI, Studio, Deployments, Endpoints,"
    yield f"`{site.stack('endpoint')}`, Test inference, Custom sample request, Content type `application/json`:"
    yield ""
    yield from _json(site)
    yield "Send request."
    yield ""
    yield "Shows: HTTP 200 and a JSON with `choices`, the text in `choices[0].message.content`, in less than"
    yield f"60 s. {_SEEN}"
    yield ""


def _serve(site: Site) -> Iterator[str]:
    rooms = [f"`{site.options.namespace}{ENGINES_SUFFIX}`", *([] if site.local else [f"`{site.options.namespace}`"])]
    yield f"## 4{'b' if hosted.made(site) else ''}. Serving on the cluster"
    yield ""
    yield f"Neither the EKS console nor SageMaker's takes objects that are pasted in {_SEEN}, so a stack applies them:"
    yield "those of the target kubernetes are in it, and a function that sends them to the cluster and, later, a"
    yield "request to the gateway."
    yield ""
    yield "**The function is administrator of the EKS cluster (AmazonEKSClusterAdminPolicy, all namespaces) for as long"
    yield "as this stack is there.** Whoever in the account may change its code or take on its role is, too; whoever"
    yield "may invoke it may send the gateway requests. It takes CloudFormation's events for this stack only, and"
    yield "neither touches nor deletes a namespace that this stack did not make."
    yield ""
    yield f"    {urls(site)[serve.FILE]}"
    yield ""
    yield 'Tick "I acknowledge that AWS CloudFormation might create IAM resources". Create stack.'
    yield ""
    yield f'Shows: CREATE_COMPLETE within five minutes; Outputs, `Said`: "applied … objects". {_SEEN}'
    yield ""
    yield "Workers load their model now. EKS, Clusters, your cluster, Resources, Workloads, Pods, namespace"
    yield f"{' and '.join(rooms)}."
    yield ""
    yield f"Shows: every pod Running and Ready, at the latest after {site.recipe.start_timeout_s} s. {_SEEN}"
    yield ""
    yield "## 5. The request"
    yield ""
    yield f"1. Open {links.page(site, 'lambda', '#/functions/' + site.stack('serve') + '?tab=testing')}"
    yield "2. Test event, Create new event, Event name `ask`, Event JSON:"
    yield ""
    yield from _json(site)
    yield "3. Test."
    yield ""
    yield 'Shows: Executing function: succeeded; Details: `"status": 200`, and in `answer` the `choices`, the text in'
    yield f"`choices[0].message.content`. 503 means that no worker is ready yet. {_SEEN}"
    yield ""


def _end(site: Site) -> Iterator[str]:
    yield "## When you are done"
    yield ""
    stacks = [site.stack(part) for part in ("serve", "endpoint", "") if part != "endpoint" or hosted.made(site)]
    stacks = stacks if site.eks else [one for one in stacks if one != site.stack("serve")]
    yield f"CloudFormation, Stacks, in this order, Delete: {', '.join(f'`{one}`' for one in stacks)}. The"
    yield "bucket stays, with its"
    yield "files, until you empty and delete it."
    yield ""
    yield f"Shows: DELETE_COMPLETE for each; under HyperPod clusters and Endpoints nothing is left. {_SEEN}"


def _json(site: Site) -> Iterator[str]:
    yield "```json"
    yield from json.dumps(request(site), indent=2).splitlines()
    yield "```"
    yield ""


def _fields(stack: Document) -> Iterator[tuple[str, str]]:
    assert not isinstance(stack.body, str)
    for name, one in stack.body["Parameters"].items():
        filled = (
            f"; filled in: `{one['Default']}`" if one.get("Default") else "; may stay empty" if "Default" in one else ""
        )
        yield name, one["Description"] + filled

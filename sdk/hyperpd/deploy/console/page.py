"""console.md: what to click, what to fill in, and what each screen should show; and the instance groups to paste."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from hyperpd.deploy.console import (
    after,
    before,
    cluster,
    endpoint,
    groups,
    hosted,
    image,
    links,
    serve,
    stock,
    troubles,
)
from hyperpd.deploy.console.site import UNSEEN, Site
from hyperpd.deploy.kubernetes.options import ENGINES_SUFFIX
from hyperpd.deploy.target import Document

FILE, PASTE_FILE = "console.md", "instance-group-settings.json"


def document(site: Site) -> Document:
    """The page."""
    return Document(FILE, "", "\n".join([*_page(site), ""]))


def pasted(site: Site) -> Document:
    """The instance groups, to paste."""
    return Document(PASTE_FILE, "", stock.settings(site))


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
    stacks = {cluster.FILE: (site.stack(), files | where)}
    if image.made(site):
        stacks[image.FILE] = (site.stack("image"), files | {"EfaSha256": options.efa_sha256})
    if hosted.made(site):
        stacks[endpoint.FILE] = (site.stack("endpoint"), files if hosted.alone(site) else {})
    if site.eks:
        stacks[serve.FILE] = (site.stack("serve"), eks)
    return {
        file: links.quick_create(site, links.template_url(site, file), stack, given)
        for file, (stack, given) in stacks.items()
    }


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
    yield f"and marked {UNSEEN}; names of buttons may differ. The templates are checked offline."
    yield ""
    yield "This does not begin with an empty account: step 0 says what has to be there. **No step takes a terminal.**"
    yield ""
    yield "Nodes of the cluster, billed from the moment they start until their stack is deleted (the last section):"
    yield ""
    yield "| instance group | type | nodes |"
    yield "|---|---|---|"
    yield from (f"| {name} | {kind} | {count} |" for name, kind, count in groups.nodes(site))
    yield ""
    if hosted.made(site):
        yield f"All workers fit on one {site.capacity.roles[0].instance.name}. For a SageMaker endpoint alone,"
        yield "with no cluster, you need of step 0 the quota for an endpoint, then steps 1, 2, 3 and 5a."
        yield ""
    yield from before.section(site)
    yield from _bucket(site)
    yield from _image(site)
    yield from _cluster(site)
    if hosted.made(site):
        yield from _endpoint(site)
    if site.eks:
        yield from _serve(site)
    elif not hosted.made(site):
        yield "## 5. Serving"
        yield ""
        yield "Slurm starts workers from jobs, and jobs are submitted in a terminal: **the clicks end here.** With"
        yield "`--set orchestrator=eks` they go on to a served request."
        yield ""
    yield from troubles.section(site)
    yield from after.section(site)


def _bucket(site: Site) -> Iterator[str]:
    options = site.options
    yield "## 1. The bucket"
    yield ""
    yield f"1. Open {links.page(site, 'cloudformation', '#/stacks/create')}"
    yield f"2. Choose an existing template, Upload a template file, Choose file: `{cluster.BUCKET_FILE}`. Next."
    yield f"3. Stack name `{site.stack('bucket')}`; `Bucket` is filled in: `{options.bucket}`. Next, Next, Submit."
    yield ""
    yield f"Shows: the stack's status CREATE_COMPLETE, within two minutes. {UNSEEN}"
    yield ""
    yield "## 2. The files"
    yield ""
    yield f"1. Open {links.page(site, 's3', '')} and in it the bucket `{options.bucket}`. Upload."
    top = options.prefix.split("/")[0]
    yield f"2. Add folder: `upload/{top}`, from the folder this page is in. Upload."
    yield ""
    yield f"Shows: a list with Status Succeeded; `{site.key('lifecycle/on_create.sh')}` is one of them. {UNSEEN}"
    yield ""
    if hosted.made(site) and (made := hosted.endpoint(site)).carries_recipe and (place := made.bucket_and_prefix):
        bucket, folder = place
        yield "For the endpoint the recipe travels with the model's files:"
        yield f"upload `{hosted.BESIDE}/{made.recipe_key}` to `s3://{bucket}/{folder}`, beside them."
        yield ""
    yield f"In a terminal it would be `aws s3 cp --recursive upload/ s3://{options.bucket}/ --region {options.region}`."
    yield ""


def _image(site: Site) -> Iterator[str]:
    yield "## 3. The image"
    yield ""
    if not image.made(site):
        yield f"Nothing to click: {image.why_not(site)}"
        yield ""
        return
    yield f"CodeBuild builds `{site.image}` from `{site.key(image.SOURCE_FILE)}`,"
    yield "and pushes it to a repository of its own. **Nobody has reported a build of it yet.** Open this address:"
    yield ""
    yield f"    {urls(site)[image.FILE]}"
    yield ""
    yield from _table(image.document(site))
    yield f"`EfaSha256`: the guide to EC2 lists it under 'Verify the EFA installer using a checksum' {UNSEEN}; or"
    yield "whoever renders this page fills it in, `--set efa_sha256=`."
    yield ""
    yield 'Tick "I acknowledge that AWS CloudFormation might create IAM resources". Create stack.'
    yield ""
    yield f"Shows: CREATE_COMPLETE within two minutes. {UNSEEN}"
    yield ""
    yield f"1. Open {links.page(site, 'codesuite/codebuild', '')} and in it Build projects,"
    yield f"   `{site.stack('image')}`. Start build."
    yield "2. Wait: the base image is tens of GB. CodeBuild bills the minutes."
    yield ""
    yield "Shows: Status Succeeded within 90 minutes; the last line of Build logs is the image with its digest, and"
    yield f"under ECR, Private registry, Repositories it is listed with its tag. {UNSEEN}"
    yield ""


def _cluster(site: Site) -> Iterator[str]:
    yield "## 4. The cluster"
    yield ""
    yield "Open this address; it is the last page of Create stack, filled in:"
    yield ""
    yield f"    {urls(site)[cluster.FILE]}"
    yield ""
    yield from _table(cluster.cluster(site))
    yield 'Tick "I acknowledge that AWS CloudFormation might create IAM resources with custom names". Create stack.'
    yield ""
    yield "Shows: `Cluster` CREATE_IN_PROGRESS after about three minutes, and CREATE_COMPLETE after 10 to 40 more."
    yield UNSEEN
    yield ""
    yield f"Then open {links.page(site, 'sagemaker', '#/cluster-management')} and in it `{site.stack()}`."
    yield ""
    yield f"Shows: Status InService, and under Instances every node Running. {UNSEEN}"
    yield ""
    yield from _pasting(site)


def _pasting(site: Site) -> Iterator[str]:
    yield "### Or from pasted instance groups"
    yield ""
    yield "Create the stack above with `CreateCluster` = no: it makes the role and the security group, and its Outputs"
    yield f"name them. `{PASTE_FILE}` has the groups, as the API's CreateCluster takes them; their"
    yield f"ExecutionRole is that of the stack, in the account {site.account} (`--set account=` names another)."
    yield ""
    if not stock.known(site):
        if not site.eks:
            yield "AWS's own stack for Slurm takes groups of another form (with InstanceGroupType), not these."
        yield f"Nothing is known here that they could be pasted in: they are for a request to the API. {UNSEEN}"
        yield ""
        return
    yield "AWS's own stack, the one that `hyp` uses, then makes the cluster. Open this address:"
    yield ""
    yield f"    {links.quick_create(site, stock.template_url(site), site.stack('nodes'), stock.nodes(site))}"
    yield ""
    yield "| field | what to fill in |"
    yield "|---|---|"
    yield f"| {stock.FIELD} | all of `{PASTE_FILE}`, instead of what is there |"
    yield "| EKSClusterName, PrivateSubnetIds | name of the EKS cluster and ID of the subnet, as above |"
    yield "| SecurityGroupIds | Output `SecurityGroupId`, a comma, the EKS cluster's security group |"
    yield ""
    yield "Paste them here, and not into a configuration of `hyp`: hyp changes the capitals of their keys (3.12.0)."
    yield "Leave the rest. Tick all boxes below Capabilities. Create stack."
    yield ""
    yield f"Shows: as above. That the console's own HyperPod page has a field for it, nobody has seen. {UNSEEN}"
    yield ""


def _endpoint(site: Site) -> Iterator[str]:
    yield "## 5a. A SageMaker endpoint of one instance"
    yield ""
    yield "Needs no cluster: all workers and the gateway are one container on an instance of the endpoint's own."
    yield ""
    yield f"    {urls(site)[endpoint.FILE]}"
    yield ""
    yield 'Tick "I acknowledge that AWS CloudFormation might create IAM resources". Create stack.'
    yield ""
    yield f"Shows: `Endpoint` CREATE_IN_PROGRESS for as long as the model loads, then CREATE_COMPLETE. {UNSEEN}"
    yield ""
    yield f"The last of it is a function, `{site.stack('endpoint')}`, that may send this endpoint a request and nothing"
    yield "else. Who tries it out needs `lambda:InvokeFunction` on it."
    yield ""
    yield from _asking(site, "endpoint")
    yield "400, 422 or 503 are the container's own words, in `answer`."
    yield ""


def _serve(site: Site) -> Iterator[str]:
    rooms = [f"`{site.options.namespace}{ENGINES_SUFFIX}`", *([] if site.local else [f"`{site.options.namespace}`"])]
    yield f"## 5{'b' if hosted.made(site) else ''}. Serving on the cluster"
    yield ""
    yield f"Neither the EKS console nor SageMaker's takes objects that are pasted in {UNSEEN}, so a stack applies them:"
    yield "those of the target kubernetes are in it, with a function that sends them to the cluster, and one that"
    yield "sends requests to the gateway."
    yield ""
    first = f"`{site.stack('serve')}-apply`"
    yield f"**The first, {first}, is administrator of the EKS cluster (AmazonEKSClusterAdminPolicy, all namespaces)"
    yield "for as long as this stack is there.** Whoever in the account may change its code or take on its role is,"
    yield "too. It takes CloudFormation's events for this stack only, and neither touches nor deletes a namespace that"
    yield "this stack did not make; what an update of the stack no longer has, it deletes."
    yield f"The second, `{site.stack('serve')}`, may send the gateway a POST and nothing else. Who tries it out needs"
    yield "`lambda:InvokeFunction` on that one."
    yield ""
    yield f"    {urls(site)[serve.FILE]}"
    yield ""
    yield 'Tick "I acknowledge that AWS CloudFormation might create IAM resources". Create stack.'
    yield ""
    yield f'Shows: CREATE_COMPLETE within five minutes; Outputs, `Said`: "applied … objects". {UNSEEN}'
    yield ""
    yield "Workers load their model now. EKS, Clusters, your cluster, Resources, Workloads, Pods, namespace"
    yield f"{' and '.join(rooms)}. If EKS says that your principal has no access, go on: step 6 answers 503 until"
    yield "workers are ready."
    yield ""
    yield f"Shows: every pod Running and Ready, at the latest after {site.recipe.start_timeout_s} s. {UNSEEN}"
    yield ""
    yield "## 6. The request"
    yield ""
    yield from _asking(site, "serve")
    yield "503 means that no worker is ready yet."
    yield ""


def _asking(site: Site, part: str) -> Iterator[str]:
    """A request, by the function that has the name of its stack."""
    yield f"1. Open {links.page(site, 'lambda', f'#/functions/{site.stack(part)}?tab=testing')}"
    yield "2. Test event, Create new event, Event name `ask`, Event JSON:"
    yield ""
    yield from _json(site)
    yield "3. Test."
    yield ""
    yield 'Shows: Executing function: succeeded; Details: `"status": 200`, and in `answer` the `choices`, the text in'
    yield f"`choices[0].message.content`. {UNSEEN}"
    yield ""


def _json(site: Site) -> Iterator[str]:
    yield "```json"
    yield from json.dumps(request(site), indent=2).splitlines()
    yield "```"
    yield ""


def _table(stack: Document) -> Iterator[str]:
    """The fields of a stack's page."""
    assert not isinstance(stack.body, str)
    yield "| field | what to fill in |"
    yield "|---|---|"
    for name, one in stack.body["Parameters"].items():
        filled = f"; filled in: `{one['Default']}`" if one.get("Default") else "; may stay empty"
        yield f"| {name} | {one['Description']}{filled if 'Default' in one else ''} |"
    yield ""

"""An account in which everything is right for a cluster on EKS, to be broken: moto, stand-ins, and what they lack."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from hyperpd.cluster import rights
from hyperpd.cluster.blueprint import Blueprint, blueprint
from hyperpd.cluster.names import Place
from tests.cluster.files import merged, spec
from tests.fakes import wire
from tests.fakes.aws import Aws
from tests.fakes.aws.identity import Identity
from tests.fakes.gate import ACCOUNT, REGION, Refused
from tests.fakes.policy import Policy

Body = Document = dict[str, Any]
PLACE = Place(ACCOUNT, REGION)
EKS, BUCKET, ROLE = "prod", "sagemaker-files", f"arn:aws:iam::{ACCOUNT}:role/nodes"
ZONE, OTHER_ZONE = "use2-az1", "use2-az2"
GPU, CPU = "ml.p5.48xlarge", "ml.c5.2xlarge"
CNI = {"enableNetworkPolicy": "true"}


class Account(Aws):
    """Aws with EKS's access modes and updates, requests for quotas, and roles that are simulated too."""

    def __init__(self, *faults: Any, **given: Any) -> None:
        super().__init__(*faults, quotas={GPU: 8, CPU: 8}, **given)
        self.prices.hourly = {GPU: 60.5, CPU: 0.5}
        self.daemonsets = [f"hyperpod-dependencies-{name}-device-plugin" for name in ("aws-efa-k8s", "nvidia")]
        self.granted: dict[str, Body] = {}
        self.kubernetes, self.kubernetes_status = "", 200
        self._beside["eks"] |= {
            "UpdateClusterConfig": self._configure,
            "UpdateClusterVersion": self._upgrade,
            "UpdateAddon": self._update_addon,
            "DescribeAddonVersions": self._addon_versions,
        }
        self._beside["servicequotas"]["RequestServiceQuotaIncrease"] = self._increase
        self._beside["iam"] |= {"SimulatePrincipalPolicy": self._simulate, "PutUserPolicy": self._grant}

    def __enter__(self) -> Self:
        super().__enter__()
        self.kubernetes = self._open.enter_context(wire.serve(self._daemonsets_answer))
        return self

    def _daemonsets_answer(self, request: wire.Request) -> wire.Answer:
        """The Kubernetes API, as far as to list DaemonSets, for who signed a call of STS that names the cluster."""
        assert request.path == "/apis/apps/v1/daemonsets"
        token = request.headers["authorization"].removeprefix("Bearer k8s-aws-v1.")
        signed = urlsplit(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode())
        query = parse_qs(signed.query)
        assert query["Action"] == ["GetCallerIdentity"]
        assert query["X-Amz-SignedHeaders"] == ["host;x-k8s-aws-id"]
        if self.kubernetes_status != 200:
            return wire.Answer(self.kubernetes_status, {}, b"{}")
        start = int(request.query.get("continue", "0"))
        items = [{"metadata": {"name": name}} for name in self.daemonsets[start : start + 1]]  # in pages of one
        more = {"continue": str(start + 1)} if start + 1 < len(self.daemonsets) else {}
        return wire.Answer(200, {}, json.dumps({"metadata": more, "items": items}).encode())

    def _addon_versions(self, asked: Body) -> Body:
        """Of each add-on the newest, which is no default, and the default."""
        versions = [
            {
                "addonVersion": f"v9.{n}.0-eksbuild.1",
                "compatibilities": [{"clusterVersion": "1.33", "defaultVersion": n == 0}],
            }
            for n in (1, 0)
        ]
        return {"addons": [{"addonName": asked["addonName"], "addonVersions": versions}]}

    def _known(self, found: Any) -> None:
        if found.operation == "DescribeAddonVersions":
            return
        named = found.parameters.get("clusterName") or found.parameters.get("name", "")
        if named not in self.stage.client("eks").list_clusters()["clusters"]:
            raise Refused("ResourceNotFoundException", f"No cluster found for name: {named}.", 404)

    def _configure(self, asked: Body) -> Body:
        self.eks.clusters[asked["name"]]["accessConfig"] = asked["accessConfig"]
        return {"update": {"id": "1", "status": "Successful"}}

    def _upgrade(self, asked: Body) -> Body:
        now, then = (int(one.split(".")[1]) for one in (self.eks.clusters[asked["name"]]["version"], asked["version"]))
        if then != now + 1:
            raise Refused("InvalidParameterException", f"Unsupported Kubernetes minor version update from 1.{now}")
        self.eks.clusters[asked["name"]]["version"] = asked["version"]
        return {"update": {"id": "1", "status": "Successful"}}

    def _update_addon(self, asked: Body) -> Body:
        kept = self.eks.addons[asked["clusterName"], asked["addonName"]]
        kept |= {"status": "ACTIVE", "addonVersion": asked.get("addonVersion", kept["addonVersion"])}
        if "configurationValues" in asked:
            kept["configurationValues"] = asked["configurationValues"]
        return {"update": {"id": "1", "status": "Successful"}}

    def _increase(self, asked: Body) -> Body:
        """Granted at once."""
        found = self.quotas.get({"ServiceCode": asked["ServiceCode"], "QuotaCode": asked["QuotaCode"]})["Quota"]
        name, wanted = found["QuotaName"], asked["DesiredValue"]
        if name.endswith(" for cluster usage"):
            self.quotas.clusters[name.partition(" ")[0]] = int(wanted)
        else:
            self.quotas.others["sagemaker", name] = wanted
        return {"RequestedQuota": {"QuotaCode": asked["QuotaCode"], "Status": "APPROVED", "DesiredValue": wanted}}

    def _simulate(self, asked: Body) -> Body:
        """Roles by what moto has of them; the caller by the gate's policy."""
        arn = asked["PolicySourceArn"]
        if ":role/" not in arn:
            return Identity(self.gate).simulate(asked)
        judge = Identity(self.gate)
        judge.gate = type(self.gate)(allow=list(self._policies(arn.rpartition("/")[2])))
        return judge.simulate(asked)

    def _policies(self, role: str) -> Iterator[Body]:
        iam = self.stage.client("iam")
        yield {"Statement": []}
        for name in iam.list_role_policies(RoleName=role)["PolicyNames"]:
            yield iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]

    def _grant(self, asked: Body) -> Body:
        assert asked["UserName"] == "stand-in"
        document = json.loads(asked["PolicyDocument"].replace("${aws:username}", asked["UserName"]))
        Policy.of(document)
        if self.gate.allow is not None:
            first = [one for one in self.gate.allow if one not in self.granted.values()]
            self.granted[asked["PolicyName"]] = document  # one of that name is no more
            self.gate.allow = [*first, *self.granted.values()]
        return {}

    def plan(self, document: Body) -> Blueprint:
        """The blueprint of a document in this account."""
        return blueprint(spec(document), PLACE)


def healthy(aws: Account, **change: Any) -> Body:
    """Everything a cluster on EKS needs; the cluster file's document that names it."""
    ec2, iam, s3 = (aws.stage.client(name) for name in ("ec2", "iam", "s3"))
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = make_subnet(aws, vpc, "10.0.0.0/20", ZONE)
    group = ec2.create_security_group(GroupName="nodes", Description="nodes", VpcId=vpc)["GroupId"]
    itself = [{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}]
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=itself)
    ec2.authorize_security_group_egress(GroupId=group, IpPermissions=itself)
    tables = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"]
    ec2.create_vpc_endpoint(
        VpcId=vpc,
        VpcEndpointType="Gateway",
        ServiceName=f"com.amazonaws.{REGION}.s3",
        RouteTableIds=[tables[0]["RouteTableId"]],
    )
    network = {"subnetIds": [subnet], "securityGroupIds": [group]}
    aws.stage.client("eks").create_cluster(
        name=EKS,
        roleArn=ROLE,
        resourcesVpcConfig=network,
        accessConfig={"authenticationMode": "API_AND_CONFIG_MAP"},
    )
    aws.eks.clusters[EKS] |= {
        "version": "1.33",
        "endpoint": aws.kubernetes,
        "resourcesVpcConfig": network | {"vpcId": vpc, "clusterSecurityGroupId": group},
    }
    aws.eks.addon(EKS, "vpc-cni", "v1.20.4-eksbuild.2", **CNI)
    aws.eks.addon(EKS, "amazon-sagemaker-hyperpod-inference", "v2.3.0-eksbuild.1")
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    document = merged(
        {
            "version": 1,
            "name": "pd",
            "region": REGION,
            "orchestrator": {"eks": EKS},
            "network": {"subnets": [subnet], "security_groups": [group]},
            "role": ROLE,
            "bucket": BUCKET,
            "groups": {
                "prefill": {"instance_type": GPU, "count": 2},
                "decode": {"instance_type": GPU, "count": 1},
                "gateway": {"instance_type": CPU, "count": 2},
            },
        },
        change,
    )
    plan = aws.plan(document)
    iam.create_role(RoleName="nodes", AssumeRolePolicyDocument=json.dumps(rights.trust()))
    iam.put_role_policy(RoleName="nodes", PolicyName="nodes", PolicyDocument=json.dumps(rights.policy(plan)))
    return document


def allowed(aws: Account, document: Body) -> Body:
    """The role may do what nodes of this document need."""
    policy = json.dumps(rights.policy(aws.plan(document)))
    aws.stage.client("iam").put_role_policy(RoleName="nodes", PolicyName="more", PolicyDocument=policy)
    return document


def accounted(aws: Account, document: Body) -> Body:
    """`document` on Slurm, with an external accounting database, whose secret is there."""
    secret = aws.stage.client("secretsmanager").create_secret(Name="slurm", SecretString="{}")["ARN"]
    accounting = {"endpoint": "db.example.com", "secret": secret}
    kinds = {name: {"slurm": {"node": "login" if name == "gateway" else "compute"}} for name in document["groups"]}
    controller = {"instance_type": CPU, "count": 1, "slurm": {"node": "controller"}}
    change = {"orchestrator": {"eks": None, "slurm": {"accounting": accounting}}, "continuous": True}
    return allowed(aws, merged(document, {**change, "groups": {**kinds, "controller": controller}}))


def make_subnet(aws: Account, vpc: str, block: str, zone: str) -> str:
    """A subnet; its id."""
    made = aws.stage.client("ec2").create_subnet(VpcId=vpc, CidrBlock=block, AvailabilityZoneId=zone)
    return str(made["Subnet"]["SubnetId"])

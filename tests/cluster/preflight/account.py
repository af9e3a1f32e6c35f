"""An account in which everything is right for a cluster on EKS, to be broken: moto, stand-ins, and what they lack."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from hyperpd.cluster import rights
from hyperpd.cluster.blueprint import Blueprint, blueprint
from hyperpd.cluster.names import Place
from tests.cluster.files import merged, spec
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
        self.modes = {EKS: "API_AND_CONFIG_MAP"}
        self.versions = {EKS: "1.33"}
        self.states = {EKS: "ACTIVE"}
        self._beside["eks"] |= {
            "DescribeCluster": self._describe,
            "UpdateClusterConfig": self._configure,
            "UpdateClusterVersion": self._upgrade,
            "UpdateAddon": self._update_addon,
        }
        self._beside["servicequotas"]["RequestServiceQuotaIncrease"] = self._increase
        self._beside["iam"] |= {"SimulatePrincipalPolicy": self._simulate, "PutUserPolicy": self._grant}

    def _known(self, found: Any) -> None:
        named = found.parameters.get("clusterName") or found.parameters.get("name", "")
        if named not in self.stage.client("eks").list_clusters()["clusters"]:
            raise Refused("ResourceNotFoundException", f"No cluster found for name: {named}.", 404)

    def _describe(self, asked: Body) -> Body:
        found = self.stage.client("eks").describe_cluster(name=asked["name"])["cluster"]
        found["createdAt"] = found["createdAt"].timestamp()
        found = {key: value for key, value in found.items() if value not in ({}, [])}
        subnets = self.stage.client("ec2").describe_subnets(SubnetIds=found["resourcesVpcConfig"]["subnetIds"])[
            "Subnets"
        ]
        found["resourcesVpcConfig"] |= {
            "vpcId": subnets[0]["VpcId"],
            "clusterSecurityGroupId": found["resourcesVpcConfig"]["securityGroupIds"][0],
        }
        found |= {"version": self.versions.get(asked["name"], "1.33"), "status": self.states[asked["name"]]}
        return {"cluster": found | {"accessConfig": {"authenticationMode": self.modes[asked["name"]]}}}

    def _configure(self, asked: Body) -> Body:
        self.modes[asked["name"]] = asked["accessConfig"]["authenticationMode"]
        return {"update": {"id": "1", "status": "Successful"}}

    def _upgrade(self, asked: Body) -> Body:
        now, then = (int(one.split(".")[1]) for one in (self.versions[asked["name"]], asked["version"]))
        if then != now + 1:
            raise Refused("InvalidParameterException", f"Unsupported Kubernetes minor version update from 1.{now}")
        self.versions[asked["name"]] = asked["version"]
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
        document = json.loads(asked["PolicyDocument"])
        Policy.of(document)
        if self.gate.allow is not None:
            self.gate.allow = [*self.gate.allow, document]
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
    aws.stage.client("eks").create_cluster(
        name=EKS, roleArn=ROLE, resourcesVpcConfig={"subnetIds": [subnet], "securityGroupIds": [group]}
    )
    aws.eks.addon(EKS, "vpc-cni", "v1.20.4-eksbuild.2", **CNI)
    for name in ("aws-efa-k8s-device-plugin", "nvidia-device-plugin"):
        aws.eks.addon(EKS, name, "v0.5.7")
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


def make_subnet(aws: Account, vpc: str, block: str, zone: str) -> str:
    """A subnet; its id."""
    made = aws.stage.client("ec2").create_subnet(VpcId=vpc, CidrBlock=block, AvailabilityZoneId=zone)
    return str(made["Subnet"]["SubnetId"])

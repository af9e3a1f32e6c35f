"""Where nodes are: one subnet of one zone, since EFA does not leave it, and a security group open to itself."""

from __future__ import annotations

from hyperpd.deploy.console.access import subnet_id
from hyperpd.deploy.console.site import Object, Site, chosen, ref, sub

_VPC_CIDR = "10.96.0.0/16"
# 4,091 addresses: HyperPod takes about 32 for a p5 with Slurm.
_SUBNET_CIDR = "10.96.0.0/20"
# What a node without a way to the internet calls: registry, logs, metrics, sessions, tokens, itself.
_SERVICES = ("ec2", "ecr.api", "ecr.dkr", "logs", "monitoring", "ssm", "ssmmessages", "ec2messages", "sts")

# What nothing names, and what a node does not start without: rules, routes, and the ways to S3 and to AWS.
NEEDED = (
    "AWS::EC2::SecurityGroupEgress",
    "AWS::EC2::SecurityGroupIngress",
    "AWS::EC2::SubnetRouteTableAssociation",
    "AWS::EC2::VPCEndpoint",
)


def resources(site: Site) -> Object:
    """The network's resources, by logical name."""
    return {**({} if site.eks else _vpc(site)), **_group(site), **_s3(site)}


def _vpc(site: Site) -> Object:
    """A VPC without a way to the internet: nothing can reach the nodes, and they reach AWS alone."""
    vpc: Object = {
        "Vpc": {
            "Type": "AWS::EC2::VPC",
            "Condition": "MakeVpc",
            "Properties": {
                "CidrBlock": _VPC_CIDR,
                "EnableDnsHostnames": True,
                "EnableDnsSupport": True,
                "Tags": [_name("vpc"), *site.tags],
            },
        },
        "Subnet": {
            "Type": "AWS::EC2::Subnet",
            "Condition": "MakeSubnet",
            "Properties": {
                "VpcId": ref("Vpc"),
                "CidrBlock": _SUBNET_CIDR,
                "AvailabilityZone": ref("AvailabilityZone"),
                "MapPublicIpOnLaunch": False,
                "Tags": [_name("nodes"), *site.tags],
            },
        },
        "Routes": {
            "Type": "AWS::EC2::RouteTable",
            "Condition": "MakeVpc",
            "Properties": {"VpcId": ref("Vpc"), "Tags": [_name("nodes"), *site.tags]},
        },
        "SubnetRoutes": {
            "Type": "AWS::EC2::SubnetRouteTableAssociation",
            "Condition": "MakeSubnet",
            "Properties": {"RouteTableId": ref("Routes"), "SubnetId": ref("Subnet")},
        },
    }
    for service in _SERVICES:
        # In the nodes' own group: its rules let them reach each other and this, and nothing else.
        vpc["Endpoint" + "".join(part.capitalize() for part in service.split("."))] = {
            "Type": "AWS::EC2::VPCEndpoint",
            "Condition": "MakeVpc",
            "Properties": {
                "ServiceName": sub(f"com.amazonaws.${{AWS::Region}}.{service}"),
                "VpcEndpointType": "Interface",
                "VpcId": ref("Vpc"),
                "SubnetIds": [ref("Subnet")],
                "SecurityGroupIds": [_id()],
                "PrivateDnsEnabled": True,
            },
        }
    return vpc


def _group(site: Site) -> Object:
    """All traffic among the nodes, both ways, is what EFA's health check demands; rules that name their own group
    cannot stand in it. One stands in it, or CloudFormation lets everything out."""
    to_s3 = {
        "Description": "Files in S3, by way of the gateway endpoint",
        "IpProtocol": "tcp",
        "FromPort": 443,
        "ToPort": 443,
        "DestinationPrefixListId": ref("S3PrefixListId"),
    }
    itself = {"GroupId": _id(), "IpProtocol": "-1"}
    return {
        "SecurityGroup": {
            "Type": "AWS::EC2::SecurityGroup",
            "Properties": {
                "GroupDescription": "HyperPod nodes among themselves and to S3",
                "VpcId": ref("VpcId") if site.eks else chosen("MakeVpc", ref("Vpc"), ref("VpcId")),
                "SecurityGroupEgress": [to_s3],
                "Tags": [_name("nodes"), *site.tags],
            },
        },
        "FromItself": {
            "Type": "AWS::EC2::SecurityGroupIngress",
            "Properties": {
                **itself,
                "Description": "EFA and all else from the nodes of this group",
                "SourceSecurityGroupId": _id(),
            },
        },
        "ToItself": {
            "Type": "AWS::EC2::SecurityGroupEgress",
            "Properties": {
                **itself,
                "Description": "EFA and all else to the nodes of this group",
                "DestinationSecurityGroupId": _id(),
            },
        },
    }


def _s3(site: Site) -> Object:
    """Without it lifecycle scripts do not arrive where there is no other way to S3, and the group fails."""
    table, vpc = ref("RouteTableId"), ref("VpcId")
    return {
        "S3Endpoint": {
            "Type": "AWS::EC2::VPCEndpoint",
            "Condition": "MakeS3Endpoint",
            "Properties": {
                "ServiceName": sub("com.amazonaws.${AWS::Region}.s3"),
                "VpcEndpointType": "Gateway",
                "VpcId": vpc if site.eks else chosen("MakeVpc", ref("Vpc"), vpc),
                "RouteTableIds": [table if site.eks else chosen("MakeVpc", ref("Routes"), table)],
            },
        }
    }


def config(site: Site) -> Object:
    """VpcConfig of the cluster."""
    extra = chosen("HasExtraGroup", ref("ExtraSecurityGroupId"), ref("AWS::NoValue"))
    groups = [_id(), *([ref("EksSecurityGroupId")] if site.eks else []), extra]
    return {"SecurityGroupIds": groups, "Subnets": [subnet_id(site)]}


def _id() -> Object:
    return {"Fn::GetAtt": ["SecurityGroup", "GroupId"]}


def _name(what: str) -> Object:
    return {"Key": "Name", "Value": sub(f"${{AWS::StackName}}-{what}")}

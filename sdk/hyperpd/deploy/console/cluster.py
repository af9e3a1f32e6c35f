"""The stacks of the bucket and of the cluster."""

from __future__ import annotations

from hyperpd.deploy.console import access, groups, network
from hyperpd.deploy.console.options import pattern
from hyperpd.deploy.console.site import Object, Site, chosen, parameter, ref, sub
from hyperpd.deploy.target import Document

BUCKET_FILE, FILE = "0-bucket.yaml", "1-cluster.yaml"
VERSION = "2010-09-09"
UNVERIFIED = (
    "Unverified: no stack of this template was ever created on a live account. It is held to CloudFormation's resource"
    " schemas, its requests to SageMaker's API model, and a stand-in has created what it knows of it."
)


def bucket(site: Site) -> Document:
    """The bucket, alone: files have to be in it before the cluster begins."""
    arn = {"Fn::GetAtt": ["Files", "Arn"]}
    deny = {
        "Sid": "NeverUnencrypted",
        "Effect": "Deny",
        "Principal": "*",
        "Action": ["s3:GetObject", "s3:ListBucket", "s3:PutObject"],
        "Resource": [arn, sub("${Files.Arn}/*")],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    body = {
        "AWSTemplateFormatVersion": VERSION,
        "Description": "hyperpd: the bucket that lifecycle scripts, templates and the recipe are uploaded to",
        "Parameters": {"Bucket": bucket_parameter(site)},
        "Resources": {
            "Files": {
                "Type": "AWS::S3::Bucket",
                "DeletionPolicy": "Retain",
                "UpdateReplacePolicy": "Retain",
                "Properties": {
                    "BucketName": ref("Bucket"),
                    "VersioningConfiguration": {"Status": "Enabled"},
                    "OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
                    "PublicAccessBlockConfiguration": {
                        "BlockPublicAcls": True,
                        "BlockPublicPolicy": True,
                        "IgnorePublicAcls": True,
                        "RestrictPublicBuckets": True,
                    },
                    "BucketEncryption": {
                        "ServerSideEncryptionConfiguration": [
                            {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
                        ]
                    },
                    "Tags": site.tags,
                },
            },
            "Policy": {
                "Type": "AWS::S3::BucketPolicy",
                "Properties": {
                    "Bucket": ref("Files"),
                    "PolicyDocument": {"Version": "2012-10-17", "Statement": [deny]},
                },
            },
        },
        "Outputs": {"Bucket": {"Description": "Upload everything here", "Value": ref("Files")}},
    }
    notes = {"Resources.Files.DeletionPolicy": "Nodes that are replaced read their scripts here; no stack empties it."}
    return Document(BUCKET_FILE, UNVERIFIED, body, notes)


def bucket_parameter(site: Site) -> Object:
    """The name begins with what AWS' own policies for HyperPod let nodes read."""
    meaning = "Bucket with the uploaded files; its name begins with sagemaker-"
    return parameter(meaning, site.options.bucket, AllowedPattern=pattern("bucket"))


def prefix_parameter(site: Site) -> Object:
    """The folder of the bucket."""
    return parameter(
        "Folder of the bucket with the uploaded files", site.options.prefix, AllowedPattern=pattern("prefix")
    )


def cluster(site: Site) -> Document:
    """Role, network, cluster."""
    eks = site.eks
    properties: Object = {
        "ClusterName": ref("AWS::StackName"),
        "InstanceGroups": groups.templated(site),
        "VpcConfig": network.config(site),
        "Orchestrator": {"Eks": {"ClusterArn": ref("EksClusterArn")}}
        if eks
        else {"Slurm": {"SlurmConfigStrategy": "Managed"}},
        "NodeRecovery": ref("NodeRecovery"),
        "Tags": site.tags,
    }
    if any(spec.kv_tiers and spec.kv_tiers.managed for spec in site.recipe.roles().values()):
        properties["TieredStorageConfig"] = {"Mode": "Enable"}
    # Names its role by a rule, so that the instance groups to paste can say it beforehand.
    name = sub("${AWS::StackName}-${AWS::Region}-execution")
    made = network.resources(site)
    needed = [name for name, one in made.items() if one["Type"] in network.NEEDED]
    body = {
        "AWSTemplateFormatVersion": VERSION,
        "Description": f"hyperpd: a HyperPod cluster ({site.options.orchestrator}) for the recipe {site.recipe.name}",
        "Metadata": {"AWS::CloudFormation::Interface": _interface(site)},
        "Parameters": _parameters(site),
        **({} if eks else {"Rules": _rules()}),
        "Conditions": _conditions(site),
        "Resources": {
            "ExecutionRole": access.role(name, "sagemaker.amazonaws.com", access.node(site), site.tags),
            **made,
            "Cluster": {
                "Type": "AWS::SageMaker::Cluster",
                "Condition": "MakeCluster",
                "DependsOn": [name for name in needed if "Condition" not in made[name]],
                "Metadata": {
                    name: chosen(made[name]["Condition"], ref(name), "") for name in needed if "Condition" in made[name]
                },
                "Properties": properties,
            },
        },
        "Outputs": {
            "ExecutionRoleArn": _output(
                "ExecutionRole of the instance groups", {"Fn::GetAtt": ["ExecutionRole", "Arn"]}
            ),
            "SecurityGroupId": _output("Security group of the nodes", {"Fn::GetAtt": ["SecurityGroup", "GroupId"]}),
            "SubnetId": _output("Subnet of the nodes", access.subnet_id(site)),
            "ClusterArn": _output("The cluster", ref("Cluster")) | {"Condition": "MakeCluster"},
        },
    }
    at = "Resources.Cluster"
    notes = {
        "Resources.ExecutionRole": "Each action with the resource * is one for which AWS takes no other.",
        "Resources.SecurityGroup": "Nothing from outside. To others only by the EKS cluster's own group."
        if eks
        else "Nothing from outside, and to AWS alone.",
        at: "Nodes are billed from here on.",
        f"{at}.DependsOn": "Nodes fail where a rule (EFA's health check) or a way to S3 and AWS (scripts) comes later.",
        f"{at}.Metadata": "As DependsOn, which must not name what may not be made: a reference is waited for.",
        f"{at}.Properties.InstanceGroups": "From the recipe: hyperpd plan shows the sum.",
        f"{at}.Properties.InstanceGroups.0.ThreadsPerCore": "As EC2 counts CPUs: pods ask for a share of those.",
    }
    return Document(FILE, UNVERIFIED, body, notes)


def _parameters(site: Site) -> Object:
    options = site.options
    found: Object = {
        "Bucket": bucket_parameter(site),
        "Prefix": prefix_parameter(site),
        "CreateCluster": parameter(
            "no: role and network only, for a cluster that is made elsewhere from the pasted instance groups",
            "yes",
            AllowedValues=["yes", "no"],
        ),
        "NodeRecovery": parameter(
            "Automatic: nodes that fail are rebooted or replaced", "Automatic", AllowedValues=["Automatic", "None"]
        ),
        "TrainingPlanArn": parameter(
            "Training plan with the workers' capacity; empty: on demand",
            options.training_plan_arn or "",
            AllowedPattern=pattern("training_plan_arn", empty=True),
        ),
        "S3PrefixListId": parameter(
            "VPC console, Managed prefix lists: the ID of com.amazonaws.REGION.s3",
            options.s3_prefix_list_id,
            AllowedPattern=pattern("s3_prefix_list_id"),
        ),
        "RouteTableId": parameter(
            "Route table of the given subnet, to get an S3 gateway endpoint; empty: it has one",
            options.route_table_id or "",
            AllowedPattern=pattern("route_table_id", empty=True),
        ),
    }
    found["ExtraSecurityGroupId"] = parameter(
        "Security group of yours with what nodes reach beyond each other and S3; empty: nothing",
        options.extra_security_group_id or "",
        AllowedPattern=pattern("extra_security_group_id", empty=True),
    )
    if site.eks:
        return found | {
            "VpcId": parameter("VPC of the EKS cluster", options.vpc_id, Type="AWS::EC2::VPC::Id"),
            "SubnetId": parameter(
                "Private subnet of it, in the capacity's availability zone",
                options.subnet_id,
                Type="AWS::EC2::Subnet::Id",
            ),
            "EksClusterArn": parameter(
                "ARN of the EKS cluster",
                options.eks_cluster_arn,
                AllowedPattern=pattern("eks_cluster_arn"),
            ),
            "EksSecurityGroupId": parameter(
                "EKS console, Networking: Cluster security group",
                options.eks_security_group_id,
                Type="AWS::EC2::SecurityGroup::Id",
            ),
        }
    return found | {
        "VpcId": parameter(
            "VPC; empty: one is made", options.vpc_id or "", AllowedPattern=pattern("vpc_id", empty=True)
        ),
        "SubnetId": parameter(
            "Private subnet of the given VPC, in the capacity's availability zone",
            options.subnet_id or "",
            AllowedPattern=pattern("subnet_id", empty=True),
        ),
        "AvailabilityZone": parameter(
            "Where the VPC that is made has its subnet: the capacity's availability zone",
            options.availability_zone,
            Type="AWS::EC2::AvailabilityZone::Name",
        ),
    }


def _conditions(site: Site) -> Object:
    given = {"Fn::Not": [{"Fn::Equals": [ref("RouteTableId"), ""]}]}
    made = {"Fn::Equals": [ref("VpcId"), ""]}
    return {
        "MakeCluster": {"Fn::Equals": [ref("CreateCluster"), "yes"]},
        "HasTrainingPlan": {"Fn::Not": [{"Fn::Equals": [ref("TrainingPlanArn"), ""]}]},
        "HasExtraGroup": {"Fn::Not": [{"Fn::Equals": [ref("ExtraSecurityGroupId"), ""]}]},
        **(
            {"MakeS3Endpoint": given}
            if site.eks
            else {
                "MakeVpc": made,
                "MakeSubnet": {"Fn::Equals": [ref("SubnetId"), ""]},
                "MakeS3Endpoint": {"Fn::Or": [{"Condition": "MakeVpc"}, given]},
            }
        ),
    }


def _rules() -> Object:
    """CloudFormation refuses the page's input by these, before it makes anything."""
    empty = [{"Fn::Equals": [ref(name), ""]} for name in ("VpcId", "SubnetId")]
    given = [{"Fn::Not": [one]} for one in empty]
    both = {"Fn::Or": [{"Fn::And": empty}, {"Fn::And": given}]}
    said = "VpcId goes with SubnetId; with neither a VPC is made"
    return {"VpcAndSubnet": {"Assertions": [{"Assert": both, "AssertDescription": said}]}}


def _interface(site: Site) -> Object:
    place = ["VpcId", "SubnetId", "RouteTableId", "S3PrefixListId", "ExtraSecurityGroupId"]
    place += ["EksClusterArn", "EksSecurityGroupId"] if site.eks else ["AvailabilityZone"]
    blocks = {
        "Where": place,
        "Files": ["Bucket", "Prefix"],
        "Cluster": ["CreateCluster", "NodeRecovery", "TrainingPlanArn"],
    }
    return {"ParameterGroups": [{"Label": {"default": label}, "Parameters": names} for label, names in blocks.items()]}


def _output(meaning: str, value: Object) -> Object:
    return {"Description": meaning, "Value": value}

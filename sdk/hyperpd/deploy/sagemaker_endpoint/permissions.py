"""What the endpoint's execution role needs, narrowed to this endpoint wherever AWS takes a resource or a condition.

Bucket, subnets and security groups are taken to be of the role's account; those that another account shares need
their ARNs and aws:ResourceAccount changed. Unverified on a live account.
"""

from __future__ import annotations

from hyperpd.deploy.sagemaker_endpoint.endpoint import Endpoint, Object

# Of a container in a VPC: network interfaces have no name before they are made.
_OWN_INTERFACES = (
    "ec2:CreateNetworkInterfacePermission",
    "ec2:DeleteNetworkInterface",
    "ec2:DeleteNetworkInterfacePermission",
)
_DESCRIBE = (
    "ec2:DescribeDhcpOptions",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "ec2:DescribeVpcs",
)


def trust(endpoint: Endpoint) -> Object:
    """SageMaker, for endpoints of this account."""
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "sagemaker.amazonaws.com"},
        "Action": "sts:AssumeRole",
        "Condition": {"StringEquals": {"aws:SourceAccount": _account(endpoint)}},
    }
    return {"Version": "2012-10-17", "Statement": [statement]}


def policy(endpoint: Endpoint) -> Object:
    """Pull the image, read the model's files, write the log and metrics; with a VPC, its network interfaces."""
    registry, partition, account = endpoint.registry, str(endpoint.options.role_arn).split(":")[1], _account(endpoint)
    repository = f"arn:{partition}:ecr:{registry['region']}:{registry['account']}:repository/{registry['repository']}"
    here = f"{registry['region']}:{account}"
    log = f"arn:{partition}:logs:{here}:log-group:/aws/sagemaker/Endpoints/{endpoint.name}"
    pull = ("ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer")
    write = ("logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents")
    statements = [
        _allow("Image", pull, repository),
        _allow("ImageToken", ("ecr:GetAuthorizationToken",), "*"),  # it has no resource
        _allow("Log", write, [log, f"{log}:log-stream:*"]),
        {
            **_allow("Metrics", ("cloudwatch:PutMetricData",), "*"),  # it has no resource, but a namespace
            "Condition": {"StringEquals": {"cloudwatch:namespace": "/aws/sagemaker/Endpoints"}},
        },
    ]
    if place := endpoint.bucket_and_prefix:
        bucket, prefix = place
        # A bucket of the same name in another account, were this one deleted, would not be read.
        own = {"StringEquals": {"aws:ResourceAccount": account}}
        reading = _allow("ModelFiles", ("s3:GetObject",), f"arn:{partition}:s3:::{bucket}/{prefix}*")
        statements.append({**reading, "Condition": own})
        listing = _allow("ModelFileNames", ("s3:ListBucket",), f"arn:{partition}:s3:::{bucket}")
        statements.append({**listing, "Condition": {**own, "StringLike": {"s3:prefix": f"{prefix}*"}}})
    if endpoint.options.subnets:
        ec2 = f"arn:{partition}:ec2:{here}:"
        interface = f"{ec2}network-interface/*"
        subnets = [f"{ec2}subnet/{one}" for one in endpoint.options.subnets]
        groups = [f"{ec2}security-group/{one}" for one in endpoint.options.security_groups]
        statements += [
            _allow("MakeInterfaces", ("ec2:CreateNetworkInterface",), [interface, *subnets, *groups]),
            _allow("OwnInterfaces", _OWN_INTERFACES, interface),
            _allow("Describe", _DESCRIBE, "*"),  # EC2 describes all or none
        ]
    return {"Version": "2012-10-17", "Statement": statements}


def _allow(name: str, actions: tuple[str, ...], resource: str | list[str]) -> Object:
    return {"Sid": name, "Effect": "Allow", "Action": list(actions), "Resource": resource}


def _account(endpoint: Endpoint) -> str:
    return str(endpoint.options.role_arn).split(":")[4]

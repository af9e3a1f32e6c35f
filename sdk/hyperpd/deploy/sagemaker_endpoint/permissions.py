"""What the endpoint's execution role needs, and no more."""

from __future__ import annotations

from hyperpd.deploy.sagemaker_endpoint.endpoint import Endpoint, Object

# Of a container in a VPC. Network interfaces have no name before they are made, and EC2 describes all or none.
_VPC = (
    "ec2:CreateNetworkInterface",
    "ec2:CreateNetworkInterfacePermission",
    "ec2:DeleteNetworkInterface",
    "ec2:DeleteNetworkInterfacePermission",
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
    registry, partition = endpoint.registry, str(endpoint.options.role_arn).split(":")[1]
    repository = f"arn:{partition}:ecr:{registry['region']}:{registry['account']}:repository/{registry['repository']}"
    logs = f"arn:{partition}:logs:{registry['region']}:{_account(endpoint)}:log-group:/aws/sagemaker/Endpoints/"
    pull = ("ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer")
    write = ("logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents")
    statements = [
        _allow("Image", pull, repository),
        _allow("ImageToken", ("ecr:GetAuthorizationToken",), "*"),  # it has no resource
        _allow("Log", write, f"{logs}{endpoint.name}*"),
        {
            **_allow("Metrics", ("cloudwatch:PutMetricData",), "*"),  # it has no resource, but a namespace
            "Condition": {"StringLike": {"cloudwatch:namespace": "/aws/sagemaker/*"}},
        },
    ]
    if place := endpoint.bucket_and_prefix:
        bucket, prefix = place
        statements.append(_allow("ModelFiles", ("s3:GetObject",), f"arn:{partition}:s3:::{bucket}/{prefix}*"))
        listing = _allow("ModelFileNames", ("s3:ListBucket",), f"arn:{partition}:s3:::{bucket}")
        statements.append({**listing, "Condition": {"StringLike": {"s3:prefix": f"{prefix}*"}}})
    if endpoint.options.subnets:
        statements.append(_allow("Network", _VPC, "*"))
    return {"Version": "2012-10-17", "Statement": statements}


def _allow(name: str, actions: tuple[str, ...], resource: str) -> Object:
    return {"Sid": name, "Effect": "Allow", "Action": list(actions), "Resource": resource}


def _account(endpoint: Endpoint) -> str:
    return str(endpoint.options.role_arn).split(":")[4]

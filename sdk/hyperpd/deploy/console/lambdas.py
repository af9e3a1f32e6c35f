"""Lambda functions as stacks have them: the source, a log, and a role of its own."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from hyperpd.deploy.console import access
from hyperpd.deploy.console.site import Object, Site, sub
from hyperpd.deploy.sagemaker_endpoint.permissions import allow


def function(
    site: Site, name: str, source: str, properties: Object, may: list[Object], *, suffix: str = "", timeout_s: int = 300
) -> Object:
    """Resources: a function, its log, its role. name: logical; suffix: of its own name, behind the stack's;
    may: statements of what it may do beside writing its log."""
    log = f"{name}Log"
    statements = [*may, allow("Logs", ["logs:CreateLogStream", "logs:PutLogEvents"], [_arn(log)])]
    return {
        log: {
            "Type": "AWS::Logs::LogGroup",
            "DeletionPolicy": "Delete",
            "UpdateReplacePolicy": "Delete",
            "Properties": {
                "LogGroupName": sub("/aws/lambda/${AWS::StackName}" + suffix),
                "RetentionInDays": 30,
                "Tags": site.tags,
            },
        },
        f"{name}Role": access.role(None, "lambda.amazonaws.com", statements, site.tags, access.OURS),
        name: {
            "Type": "AWS::Lambda::Function",
            "DependsOn": [log],
            "Properties": {
                "FunctionName": sub("${AWS::StackName}" + suffix),
                **properties,
                "Runtime": "python3.13",
                "Timeout": timeout_s,
                "MemorySize": 256,
                "Role": _arn(f"{name}Role"),
                "Code": {"ZipFile": source},
                "Tags": site.tags,
            },
        },
    }


def source(module: ModuleType) -> str:
    """The text of a module that stands alone."""
    return Path(str(module.__file__)).read_text()


def _arn(logical: str) -> Object:
    return {"Fn::GetAtt": [logical, "Arn"]}

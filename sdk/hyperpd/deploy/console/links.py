"""Addresses of the AWS console."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, urlencode

from hyperpd.deploy.console.site import Site

# CloudFormation: TemplateURL at most 1,024 characters. Of the whole address AWS says nothing; 2,048 goes through every
# browser, mail program and chat.
TEMPLATE_URL_MAX, URL_MAX = 1024, 2048
_CONSOLE = {
    "aws": "console.aws.amazon.com",
    "aws-cn": "console.amazonaws.cn",
    "aws-us-gov": "console.amazonaws-us-gov.com",
}


def quick_create(site: Site, template: str, stack: str, parameters: Mapping[str, str | None]) -> str:
    """The page that creates a stack of the template at an address, filled in: one look and one click.

    parameters: those without a value are left to the page.
    """
    given = {f"param_{name}": value for name, value in parameters.items() if value}
    query = {"templateURL": template, "stackName": stack, **given}
    return f"{_at(site, 'cloudformation')}#/stacks/create/review?{urlencode(query, quote_via=quote)}"


def template_url(site: Site, file: str) -> str:
    """Where a template of ours is in the bucket."""
    end = "amazonaws.com.cn" if site.partition == "aws-cn" else "amazonaws.com"
    return f"https://{site.options.bucket}.s3.{site.options.region}.{end}/{quote(site.key(file))}"


def page(site: Site, service: str, fragment: str) -> str:
    """A page of a service."""
    return f"{_at(site, service)}{fragment}"


def _at(site: Site, service: str) -> str:
    return f"https://{_CONSOLE[site.partition]}/{service}/home?region={site.options.region}"

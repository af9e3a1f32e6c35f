"""How it ends: every stack that the page made, in the order in which they can be deleted."""

from __future__ import annotations

from collections.abc import Iterator

from hyperpd.deploy.console import hosted, image, links, stock
from hyperpd.deploy.console.site import UNSEEN, Site


def stacks(site: Site) -> dict[str, str]:
    """Stack → what to know of it; none before what it uses."""
    found = {site.stack("serve"): ""} if site.eks else {}
    if hosted.made(site):
        found[site.stack("endpoint")] = "its instance is billed until then"
    if stock.known(site):
        found[site.stack("nodes")] = (
            f"there after pasting only, with all nodes, which use the security group of `{site.stack()}`"
        )
    found[site.stack()] = "the nodes, unless they were pasted, are billed until then"
    if image.made(site):
        found[site.stack("image")] = ""
    if stock.known(site):
        found[site.stack("eks")] = "if step 0 made it: the EKS cluster and its network, billed until then"
    return found | {site.stack("bucket"): ""}


def section(site: Site) -> Iterator[str]:
    """The last section."""
    yield "## When you are done"
    yield ""
    yield f"Open {links.page(site, 'cloudformation', '#/stacks')}. Delete these, each when the one before is gone;"
    yield "pass over those that you did not make:"
    yield ""
    for number, (name, said) in enumerate(stacks(site).items(), 1):
        yield f"{number}. `{name}`{': ' + said if said else ''}"
    yield ""
    stay = "The bucket, and the repository of the image, stay" if image.made(site) else "The bucket stays"
    yield f"{stay} until you empty and delete {'them' if image.made(site) else 'it'}."
    yield ""
    yield f"Shows: DELETE_COMPLETE for each; under HyperPod clusters and Endpoints nothing is left. {UNSEEN}"

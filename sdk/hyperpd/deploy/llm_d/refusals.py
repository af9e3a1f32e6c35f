"""Why a recipe cannot go to llm-d with these options, beyond what kubernetes refuses."""

from __future__ import annotations

from collections.abc import Iterator

from hyperpd.deploy.llm_d import events
from hyperpd.deploy.llm_d.options import Options
from hyperpd.recipe import Recipe


def problems(recipe: Recipe, options: Options) -> Iterator[str]:
    """Every problem, each with the field or option it is about."""
    if not options.gateway:
        yield "gateway: the route joins a Gateway of the cluster; give --set gateway=NAMESPACE/NAME"
    if recipe.gateway.auth == "keys":
        yield (
            "gateway.auth: llm-d asks for no key, so everybody who reaches the Gateway would be served; authenticate"
            " there, and say none"
        )
    if options.tls_secret:
        yield "tls_secret: the route leads to hyperpd's gateway by plain HTTP; leave it out"
    if options.envoy_image and options.route != "nginx":
        yield "envoy_image: goes with route=nginx; Istio's proxies are Istio's own"
    if options.priorities:
        names = [each.partition("=")[0] for each in options.priorities.split(",")]
        yield from (f"priorities: {name} is given twice" for name in sorted({n for n in names if names.count(n) > 1}))
    yield from events.problems(recipe)

"""exceeded(store objects, …) → what a ResourceQuota refuses, in the server's words.

Counted: pods and what their containers request and limit, and objects by count/RESOURCE, services, configmaps,
secrets and persistentvolumeclaims. Scopes are not known: a quota with scopes is an error of the test.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from tests.deploy.objects import Object, Pod, quantity
from tests.fakes.kubernetes.refusal import Refused, forbidden
from tests.fakes.kubernetes.resources import Place

_COUNTED = ("pods", "services", "configmaps", "secrets", "persistentvolumeclaims", "resourcequotas")
Totals = dict[str, Fraction]


def exceeded(at: Place, new: Object, others: Iterable[Object], quotas: Iterable[Object]) -> Refused | None:
    """The refusal of a new object beside `others` of its kind and namespace, or None."""
    wanted, beside = usage(at, new), [usage(at, each) for each in others if _counts(each)]
    for each in quotas:
        if each["spec"].get("scopes") or each["spec"].get("scopeSelector"):
            raise NotImplementedError("the stand-in knows no scopes of a quota")
        hard = {name: amount for name, amount in each["spec"].get("hard", {}).items() if name in _named(at, each)}
        name = each["metadata"]["name"]
        if at.resource.kind == "Pod" and (unsaid := [one for one in hard if one not in wanted and _must_be_said(one)]):
            containers = [one["name"] for one in new["spec"]["containers"]]
            said = "; ".join(f"{one} for: {','.join(containers)}" for one in sorted(unsaid))
            return forbidden(
                f'{at.resource.qualified} "{at.name}" is forbidden: failed quota: {name}: must specify {said}'
            )
        used = {one: sum((totals.get(one, Fraction(0)) for totals in beside), Fraction(0)) for one in hard}
        over = sorted(one for one in hard if one in wanted and used[one] + wanted[one] > quantity(hard[one]))
        if over:
            said = f"requested: {_listed(over, wanted)}, used: {_listed(over, used)}, limited: "
            said += ",".join(f"{one}={hard[one]}" for one in over)
            return forbidden(f'{at.resource.qualified} "{at.name}" is forbidden: exceeded quota: {name}, {said}')
    return None


def usage(at: Place, body: Object) -> Totals:
    """What an object takes of a quota."""
    totals = {f"count/{at.resource.qualified}": Fraction(1)}
    if at.resource.plural in _COUNTED:
        totals[at.resource.plural] = Fraction(1)
    if at.resource.kind == "Pod":
        pod = Pod(at.name, at.namespace, {}, body["spec"], "")
        for name, amount in pod.requests.items():
            totals[f"requests.{name}"] = amount
            if name in ("cpu", "memory"):
                totals[name] = amount
        for container in body["spec"]["containers"]:
            for name, amount in container.get("resources", {}).get("limits", {}).items():
                totals[f"limits.{name}"] = totals.get(f"limits.{name}", Fraction(0)) + quantity(amount)
    return totals


def _named(at: Place, quota: Object) -> set[str]:
    """The names of a quota that speak of this kind."""
    if at.resource.kind == "Pod":
        return {
            name for name in quota["spec"].get("hard", {}) if not name.startswith("count/") or name == "count/pods"
        } - (set(_COUNTED) - {"pods"})
    return {f"count/{at.resource.qualified}", at.resource.plural}


def _must_be_said(name: str) -> bool:
    """Whether a pod that says nothing of it is refused; of devices it then takes none."""
    return name in ("cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory")


def _counts(body: Object) -> bool:
    return (body.get("status") or {}).get("phase") not in ("Succeeded", "Failed")


def _listed(names: list[str], totals: Totals) -> str:
    return ",".join(f"{name}={_spell(totals[name])}" for name in names)


def _spell(amount: Fraction) -> str:
    return str(amount.numerator) if amount.denominator == 1 else f"{amount * 1000}m"

"""The target llm_d: the same workers, routes, refusals, each option; whole renderings as they were last looked at."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
import yaml

from hyperpd import deploy, engine, recipe
from hyperpd.deploy import kubernetes, llm_d
from hyperpd.deploy.kubernetes import sidecar
from hyperpd.deploy.llm_d import charts, routes
from hyperpd.deploy.target import fate, leaves
from hyperpd.errors import RecipeError
from tests.deploy import (
    flows_contract,
    objects,
    objects_lifetime,
    objects_recipes,
    objects_rendered,
    objects_security,
    objects_wiring,
    schema,
    simulator_checks,
    snapshot,
)
from tests.deploy.llm_d_rendered import (
    EVENTS,
    EXAMPLES,
    GATEWAY,
    HEARD,
    IMAGE,
    PRIORITIES,
    REFUSED,
    ROUTES,
    example,
    made,
    names,
    rendered,
    settings,
    texts,
)
from tests.deploy.test_kubernetes import AGGREGATED, EFA, LOCAL, PAIR

CASES = [(name, route) for name in names() for route in ROUTES]


def workloads(bodies: list[dict[str, Any]]) -> dict[str, Any]:
    """What runs in the engines' namespace, and what it stands on."""
    kinds = ("Deployment", "LeaderWorkerSet", "ConfigMap", "ServiceAccount", "Service", "PodDisruptionBudget")
    return {f"{b['kind']}/{b['metadata']['name']}": b for b in bodies if b["kind"] in kinds and _engines(b)}


def _engines(body: dict[str, Any]) -> bool:
    return str(body["metadata"].get("namespace", "")).endswith("-engines")


# The same workers


@pytest.mark.parametrize("name", names())
def test_workers_change_hands_without_a_restart(name: str) -> None:
    """kubernetes with its option llm_d, and every front and route of llm_d, have the same workers byte for byte."""
    given = [*objects_rendered.settings(name, "hyperpod"), "llm_d=true"]
    rendering = deploy.render(objects_recipes.load(name), "kubernetes", given)
    ours = workloads([dict(one.body) for one in rendering.documents])  # type: ignore[arg-type]
    assert any(key.startswith(("Deployment", "LeaderWorkerSet")) for key in ours)
    for route in ROUTES:
        for front in ("canary", "both", "llm_d"):
            assert workloads(rendered(name, f"route={route}", f"front={front}")) == ours


def test_pods_differ_from_plain_ones_by_labels_a_port_and_a_sidecar() -> None:
    plain, ours = objects_rendered.rendered("efa-two-nodes", "hyperpod"), rendered("efa-two-nodes")
    was, now = ({key: b for key, b in workloads(some).items() if objects.templates(b)} for some in (plain, ours))
    assert was.keys() == now.keys() == {"Deployment/prefill", "LeaderWorkerSet/decode-groups"}
    (before,), (after,) = (objects.templates(each["Deployment/prefill"]) for each in (was, now))
    assert after["spec"] == before["spec"]  # prefill's pod has llm-d's marks, and nothing else of it
    assert after["metadata"]["annotations"].items() - before["metadata"]["annotations"].items() == {
        ("llm-d.ai/active-ports", "8100")
    }
    marks = {("llm-d.ai/inference-serving", "true"), ("llm-d.ai/engine-type", "vllm")}
    assert after["metadata"]["labels"].items() - before["metadata"]["labels"].items() == {
        *marks,
        ("llm-d.ai/role", "prefill"),
    }
    leader, follower = objects.templates(now["LeaderWorkerSet/decode-groups"])
    was_leader, was_follower = objects.templates(was["LeaderWorkerSet/decode-groups"])
    assert follower == was_follower  # it has no API
    assert leader["metadata"]["annotations"]["llm-d.ai/active-ports"] == "8000"
    (beside,) = leader["spec"].pop("initContainers")
    assert beside["restartPolicy"] == "Always"
    assert {"--port=8000", "--model-server-port=8100", "--kv-connector=nixlv2"} < set(beside["args"])
    added = {"name": "HYPERPD_API_ADDRESS", "value": "0.0.0.0"}  # the sidecar knows its worker as localhost
    leader["spec"]["containers"][0]["env"].remove(added)
    assert leader["spec"] == was_leader["spec"]


def test_nothing_of_llm_d_without_the_option() -> None:
    assert "llm-d" not in json.dumps(objects_rendered.rendered("efa-two-nodes", "hyperpod"))


def test_connections_outlive_those_that_the_sidecar_keeps() -> None:
    assert engine.KEEP_ALIVE_S > 90  # IdleConnTimeout of llm-d-router v0.10.0, pkg/sidecar/proxy


# Objects


@pytest.mark.parametrize(("name", "route"), CASES)
def test_objects_are_as_their_schemas_say(name: str, route: str) -> None:
    every = [*rendered(name, f"route={route}"), *made(name, f"route={route}", PRIORITIES)]
    assert [f"{objects.name(b)}: {found}" for b in every for found in schema.problems(b)] == []
    assert {"HTTPRoute", "InferencePool", "InferenceObjective"} <= {body["kind"] for body in every}


@pytest.mark.parametrize("name", names())
def test_the_fleet_holds_together(name: str) -> None:
    """Scheduler, wiring, lifetimes and pod security, as of the target kubernetes, llm-d's pods among them."""
    file = objects_recipes.load(name)
    for route in ROUTES:
        ours, theirs = rendered(name, f"route={route}", "front=both"), made(name, f"route={route}")
        monitor = "llm-d-router"  # of pods that the chart makes
        found = objects_wiring.problems([body for body in ours if body["metadata"]["name"] != monitor], file)
        found += objects_wiring.monitors([*ours, *theirs], file)
        found += objects_lifetime.problems(ours, file.recipe)
        found += objects_security.outside([*ours, *theirs])
        found += objects_security.not_admitted(ours, objects.pods([*ours, *theirs]))
        found += simulator_checks.problems([*ours, *theirs], file)
        given = {key: objects_rendered.option(name, key) for key in ("clients_namespace", "monitoring_pods")}
        found += flows_contract.problems(ours, file, **given)
        assert not found, f"{route}\n" + "\n".join(found)


@pytest.mark.parametrize(("name", "route"), CASES)
def test_the_route_leads_to_what_is_there(name: str, route: str) -> None:
    every = [*rendered(name, f"route={route}", "front=both"), *made(name, f"route={route}")]
    (way,) = objects.of(every, "HTTPRoute")
    ends = [backend for rule in way["spec"]["rules"] for backend in rule["backendRefs"]]
    assert len(ends) == 2
    for end in ends:
        kind, where = end.get("kind", "Service"), end.get("namespace", way["metadata"]["namespace"])
        (there,) = (b for b in every if objects.name(b) == f"{kind}/{end['name']}" and objects.namespace(b) == where)
        if kind == "Service":
            assert end["port"] in [port["port"] for port in there["spec"]["ports"]]
        if where != way["metadata"]["namespace"]:
            (grant,) = objects.of(every, "ReferenceGrant")
            assert objects.namespace(grant) == where
            assert grant["spec"]["to"] == [{"group": "", "kind": "Service", "name": end["name"]}]


@pytest.mark.parametrize("name", names())
def test_the_pool_has_each_worker_once_with_a_port_of_its_own(name: str) -> None:
    ours = rendered(name)
    (pool,) = objects.of(made(name), "InferencePool")
    chosen = [pod for pod in objects.near(ours, pool) if objects.selects(pool["spec"]["selector"], pod.labels)]
    assert {pod.name for pod in chosen} == {pod.name for pod in objects.pods(ours) if pod.serves and pod.leads}
    templates = {pod.owner: pod for pod in chosen}
    listed = [port["number"] for port in pool["spec"]["targetPorts"]]
    for body in ours:
        if objects.name(body) in templates:
            meta = objects.templates(body)[0]["metadata"]
            spec = objects.templates(body)[0]["spec"]
            active = meta["annotations"].get("llm-d.ai/active-ports")
            (port,) = [int(active)] if active else listed
            every = [*spec["containers"], *spec.get("initContainers", ())]
            assert port in listed
            assert port in [open_["containerPort"] for each in every for open_ in each["ports"]]
            assert meta["labels"]["llm-d.ai/role"] in ("prefill", "decode", "prefill-decode")


# Long streams, and who may say what


def test_streams_are_not_buffered_and_have_time() -> None:
    (way,) = objects.of(rendered("tiny-cpu-1p1d", "stream_timeout_s=7200"), "HTTPRoute")
    assert [rule["timeouts"] for rule in way["spec"]["rules"]] == [{"request": "7200s"}]
    every = rendered("tiny-cpu-1p1d", "route=nginx", "stream_timeout_s=7200")
    (passing,), (coming,) = (objects.of(every, kind) for kind in ("ProxySettingsPolicy", "ClientSettingsPolicy"))
    (way,) = objects.of(every, "HTTPRoute")
    assert passing["spec"]["buffering"] == {"disable": True}
    assert passing["spec"]["timeout"] == {"read": "7200s", "send": "7200s"}
    assert coming["spec"]["body"] == {"maxSize": "8m"}
    for target in (*passing["spec"]["targetRefs"], coming["spec"]["targetRef"]):
        assert (target["kind"], target["name"]) == ("HTTPRoute", way["metadata"]["name"])
    assert all("timeouts" not in rule for rule in way["spec"]["rules"])  # NGINX Gateway Fabric has none


def test_nginx_asks_no_endpoint_picker_itself() -> None:
    """It would take the chosen pod from it and nothing else, so that no prefill would ever be remote."""
    (way,) = objects.of(rendered("tiny-cpu-1p1d", "route=nginx"), "HTTPRoute")
    assert [rule["backendRefs"] for rule in way["spec"]["rules"]] == [
        [{"group": "", "kind": "Service", "name": "hyperpd-epp", "port": 8081}]
    ]


def test_clients_do_not_steer() -> None:
    (way,) = objects.of(rendered("tiny-cpu-1p1d", "route=nginx", "front=both"), "HTTPRoute")
    for rule in way["spec"]["rules"]:
        (cleaned,) = rule["filters"]
        assert cleaned["requestHeaderModifier"]["remove"] == list(routes.STEERING)
    (refused,) = (b for b in example("istio") if b["kind"] == "AuthorizationPolicy")
    keys = [rule["when"][0]["key"] for rule in refused["spec"]["rules"]]
    assert keys == [f"request.headers[{header}]" for header in routes.STEERING]


def test_a_gateway_of_ones_own_is_told_to_refuse_steering(load) -> None:
    """With Istio the route cannot keep such headers out, and the sidecar does not: whoever has the Gateway has to."""
    said = {route: texts(load(PAIR), f"route={route}")[routes.FILE] for route in ROUTES}
    assert {route: "examples/llm-d/gateway-istio.yaml" in text for route, text in said.items()} == {
        "istio": True,
        "nginx": False,
    }
    assert "ssrf" not in json.dumps(rendered("tiny-cpu-1p1d"))


@pytest.mark.parametrize("route", ROUTES)
def test_the_examples_gateway_admits_the_route(route: str) -> None:
    bodies = example(route)
    assert [found for body in bodies for found in schema.problems(body)] == []
    (gateway,) = objects.of(bodies, "Gateway")
    (way,) = objects.of(rendered("tiny-cpu-1p1d", f"route={route}"), "HTTPRoute")
    (parent,) = way["spec"]["parentRefs"]
    assert (parent["namespace"], parent["name"]) == (objects.namespace(gateway), gateway["metadata"]["name"])
    admitted = gateway["spec"]["listeners"][0]["allowedRoutes"]["namespaces"]["selector"]
    assert objects.selects(admitted, {"kubernetes.io/metadata.name": objects.namespace(way)})


def test_the_page_says_what_is_taken(load) -> None:
    page = (EXAMPLES / "README.md").read_text()
    asked = set(re.findall(r"--set (\w+)=", page))
    known_options = {*llm_d.Options.model_fields, *kubernetes.Options.model_fields}
    assert {"llm_d", "front", "route", "gateway", "image"} <= asked <= known_options
    (yaml_,) = re.findall(r"```\n(prefill: .+?)```", page, re.DOTALL)
    said = yaml.safe_load(yaml_.replace("MODEL", "example/small"))
    known = load(HEARD).recipe
    assert said == {role: {"engine": {"kv-events-config": dict(next(iter(known.role(role).engine.values())))}}
                    for role in ("prefill", "decode")}  # fmt: skip
    assert sidecar.ROUTER_VERSION in page
    assert routes.ASK in page


@pytest.mark.parametrize(("name", "route"), CASES)
def test_back_leaves_nothing_of_llm_d(name: str, route: str) -> None:
    """The page's commands delete what the steps made and step 0 has not; no more, no less."""
    given = [*objects_rendered.settings(name, "hyperpod"), "llm_d=true"]
    first = [one.body for one in deploy.render(objects_recipes.load(name), "kubernetes", given).documents]
    stays = {identity(body) for body in first if not isinstance(body, str)}
    steps = {front: rendered(name, f"route={route}", f"front={front}") for front in ("canary", "both", "llm_d")}
    left = {identity(body) for bodies in steps.values() for body in bodies} - stays
    assert left
    assert (
        gone(deploy.render(objects_recipes.load(name), "llm_d", settings(name, f"route={route}", "front=canary")))
        == left
    )
    # and forward: what step 3 leaves out goes with the namespace that it deletes
    ends = {identity(body) for body in steps["both"]} - {identity(body) for body in steps["llm_d"]}
    assert {namespace or called for _, called, namespace in ends} == {"hyperpd"}


def identity(body: Any) -> tuple[str, str, str]:
    return body["kind"].lower(), body["metadata"]["name"], body["metadata"].get("namespace", "")


def gone(step: deploy.Rendering) -> set[tuple[str, str, str]]:
    """What the page's kubectl delete commands take away, step-1 being this rendering."""
    page = (EXAMPLES / "README.md").read_text()
    (block,) = re.findall(r"```\n(kubectl apply --filename step-0\n.+?)```", page, re.DOTALL)
    found = set()
    for line in block.splitlines():
        if file := re.fullmatch(r"kubectl delete --filename step-1/(\S+)", line):
            found |= {identity(one.body) for one in step.documents if one.file == file[1]}
        elif some := re.fullmatch(r"kubectl --namespace (\S+) delete (\S+) (.+)", line):
            found |= {(some[2], called, some[1]) for called in some[3].split()}
        else:
            assert line in ("kubectl apply --filename step-0", f"helmfile --file step-1/{charts.FILE} destroy"), line
    return found


def test_the_front_decides_who_serves() -> None:
    def ways(front: str) -> list[tuple[str, str]]:
        (way,) = objects.of(rendered("tiny-cpu-1p1d", f"front={front}"), "HTTPRoute")
        return [
            (rule["matches"][0].get("headers", [{"value": ""}])[0]["value"], rule["backendRefs"][0]["name"])
            for rule in way["spec"]["rules"]
        ]

    assert ways("llm_d") == [("", "hyperpd")]
    assert ways("both") == [("hyperpd", "gateway"), ("", "hyperpd")]
    assert ways("canary") == [("llm-d", "hyperpd"), ("", "gateway")]
    gone = rendered("tiny-cpu-1p1d")
    assert {objects.namespace(body) for body in gone if body["kind"] != "Namespace"} == {"hyperpd-engines"}
    assert {body["metadata"]["name"] for body in gone if body["kind"] == "Namespace"} == {"hyperpd-engines"}


# Refusals, options, fields


@pytest.mark.parametrize(
    ("text", "given", "said"),
    [
        (PAIR, [IMAGE], "gateway: the route joins a Gateway of the cluster; give --set gateway=NAMESPACE/NAME"),
        (PAIR, [IMAGE, "gateway=inference"], "gateway:"),
        (PAIR, [GATEWAY], "image: the recipe names none"),
        (PAIR, [IMAGE, GATEWAY, "llm_d=false"], "llm_d: an option of the target kubernetes"),
        (PAIR, [IMAGE, GATEWAY, "llm_d=true"], "llm_d: an option of the target kubernetes"),
        (PAIR, [IMAGE, GATEWAY, "priorities=a=1,a=2"], "priorities: a is given twice"),
        (PAIR, [IMAGE, GATEWAY, "priorities=high"], "priorities:"),
        (PAIR, [IMAGE, GATEWAY, "envoy_image=a:1"], "envoy_image: goes with route=nginx"),
        (PAIR, [IMAGE, GATEWAY, "rout=nginx"], "rout: unknown key; did you mean route?"),
        (LOCAL, [IMAGE, GATEWAY], "kv_transfer.fabric: local puts all workers into one pod"),
        (AGGREGATED, [IMAGE, GATEWAY, "keys_secret=keys"], "gateway.auth: llm-d asks for no key"),
        (PAIR, [IMAGE, GATEWAY, "tls_secret=tls", "front=both"], "tls_secret: the route leads to"),
        (PAIR, [IMAGE, GATEWAY, "workers_tls_secret=tls"], "workers_tls_secret: llm-d asks workers by plain HTTP"),
        (HEARD.replace("5558", "5557"), [IMAGE, GATEWAY], "prefill.engine.kv-events-config.endpoint: 'tcp://*:5557'"),
        (HEARD.replace("kv@decode", "decode"), [IMAGE, GATEWAY], "decode.engine.kv-events-config.topic: "),
        (HEARD.replace("publisher: zmq, ", ""), [IMAGE, GATEWAY], "kv-events-config.publisher: None; llm-d"),
        (HEARD.replace("example/small}", "example/small, served_as: small}"), [IMAGE, GATEWAY], "'kv@prefill@small'"),
        (HEARD.replace("kv_events_config", "seed").replace(EVENTS.format(port=5557, role="decode"), "1"),
         [IMAGE, GATEWAY], "decode.engine.kv-events-config: missing"),
        (HEARD.replace("huggingface: example/small", "path: /models/small"), [IMAGE, GATEWAY], "model: with kv-events"),
        (HEARD.replace("parallel: {tensor: 2}", "parallel: {data: 2}"), [IMAGE, GATEWAY], "decode.parallel.data: each"),
    ],
)  # fmt: skip
def test_refusals_name_the_field_or_option(text: str, given: list[str], said: str, load) -> None:
    with pytest.raises(RecipeError) as error:
        deploy.render(load(text), "llm_d", given)
    assert said in str(error.value)


@pytest.mark.parametrize(("name", "why"), REFUSED.items())
def test_recipes_that_llm_d_cannot_serve(name: str, why: str) -> None:
    with pytest.raises(RecipeError) as error:
        rendered(name)
    assert why in str(error.value)


def test_all_problems_come_at_once(load) -> None:
    with pytest.raises(RecipeError) as error:
        deploy.render(load(AGGREGATED), "llm_d", ["priorities=a=1,a=2", "envoy_image=a:1"])
    for key in ("image", "gateway", "gateway.auth", "priorities", "envoy_image", "aggregated.autoscaling"):
        assert f"{key}: " in str(error.value)


@pytest.mark.parametrize(
    "setting",
    [
        "route=nginx",
        "gateway=edge/other",
        "hostname=llm.example",
        "front=both",
        "front=canary",
        "stream_timeout_s=60",
        PRIORITIES,
        "prefill_tokens_s=20000",
        "epp_cpus=2",
        "llm_d_registry=mirror.example/llm-d",
        "namespace=team",
        "platform=eks",
    ],
)
def test_each_option_does_something(setting: str, load) -> None:
    file = load(PAIR)
    key = setting.partition("=")[0]
    given = [IMAGE, *([GATEWAY] if key != "gateway" else []), setting]
    bodies = [one.body for one in deploy.render(file, "llm_d", given).documents]
    assert bodies != [one.body for one in deploy.render(file, "llm_d", [IMAGE, GATEWAY]).documents]


def test_no_option_without_a_choice() -> None:
    """All that `hyperpd targets llm_d` lists can be set; that workers are llm-d's is not a question here."""
    assert set(kubernetes.Options.model_fields) - set(llm_d.Options.model_fields) == {"llm_d"}


def test_what_the_cluster_needs_is_asked_for_only_where_it_is_used(load) -> None:
    for more in ((), (PRIORITIES,)):
        said = texts(load(PAIR), *more)[charts.FILE].replace("\n# ", " ")
        assert (charts.OBJECTIVES in said) == bool(more)
        assert all(one in said for one in charts.BEFORE)


def test_every_field_has_a_fate() -> None:
    paths = list(leaves(recipe.Recipe))
    assert [path for path in paths if fate(llm_d.FIELDS, path) is None] == []
    assert [key for key in llm_d.FIELDS if not any(f"{path}.".startswith(f"{key}.") for path in paths)] == []


def test_what_is_lost_is_said(load) -> None:
    text = EFA.replace("auth: keys", "policy: round_robin, limits: {concurrent_requests: 9, body_mib: 4}")
    given = [IMAGE, GATEWAY, "prometheus=http://prometheus.monitoring:9090", "clients_namespace=shop"]
    rendering = deploy.render(load(text), "llm_d", given)
    lost = [one.partition(":")[0] for one in rendering.not_expressed]
    assert sorted(lost) == [
        "clients_namespace",
        "gateway.decider",
        "gateway.limits.body_mib",
        "gateway.limits.concurrent_requests",
        "gateway.policy",
        "gateway.replicas",
        "slo.ttft_ms",
    ]
    scalers = [one.body for one in rendering.documents if one.file == "7-scaling.yaml"]
    triggers = [each["name"] for scaler in scalers for each in scaler["spec"]["triggers"]]  # type: ignore[index]
    assert triggers == ["prompts", "kv-cache", "itl"]  # none asks the gateway that is not there
    for document in rendering.documents:
        snapshot.notes_meet_keys(document)


# Whole renderings


@pytest.mark.parametrize(
    ("name", "text", "more"),
    [
        ("llm-d-istio", None, (PRIORITIES,)),
        ("llm-d-nginx", HEARD, ("route=nginx", "front=canary", "hostname=llm.example", "hf_token_secret=hub")),
    ],
)
def test_whole_renderings(name: str, text: str | None, more: tuple[str, ...], load) -> None:
    file = load(text or "tiny-cpu-1p1d")
    said = texts(file, *more)
    snapshot.hold(f"{name}.yaml", snapshot.joined(said))
    given = [IMAGE, GATEWAY, *more]
    rendering = deploy.render(file, "llm_d", given)
    assert [body for each in said.values() for body in yaml.safe_load_all(each)] == [
        one.body for one in rendering.documents
    ]
    for document in rendering.documents:
        snapshot.notes_meet_keys(document)


def test_rendering_costs_little() -> None:
    file = recipe.load("deepseek-r1-p5en-1p1d")
    texts(file, "cache_folder=/opt/hyperpd/data/models")
    began = time.process_time()
    texts(file, "cache_folder=/opt/hyperpd/data/models")
    print(f"rendered in {(time.process_time() - began) * 1000:.0f} ms of CPU")

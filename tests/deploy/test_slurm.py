"""The target slurm: whole renderings as they were last looked at, what is refused, and what every task is told."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperpd import deploy, instances, models, recipe
from hyperpd.deploy import slurm
from hyperpd.deploy.slurm import layout, refusals
from hyperpd.deploy.slurm.script import pyxis_image
from hyperpd.deploy.target import fate, leaves
from hyperpd.errors import RecipeError
from hyperpd.placement import JOB_STRIDE, JOBS, Machine, Ports, Worker, place, place_one
from hyperpd_runtime import settings as runtime_settings
from tests.deploy import objects_recipes, slurm_stand_in, snapshot

FOLDER, CACHE = "folder=/fsx/hyperpd", "cache_folder=/fsx/cache"
IMAGE = "image=123456789012.dkr.ecr.us-east-2.amazonaws.com/hyperpd:0.1.0"
CONTAINER = [FOLDER, IMAGE, CACHE]
BARE = [FOLDER, "mode=bare", "python=/opt/hyperpd/bin/python"]

FULL = """version: 1
name: own.full
image: registry.example/h:1
model: {huggingface: example/large, adapters: [{name: sql, path: /fsx/adapters/sql}]}
prefill: {replicas: 5, instance_type: ml.p5.48xlarge, parallel: {tensor: 2}, autoscaling: {min: 1, max: 8}, \
kv_tiers: {memory_gib: 64, disk: /opt/dlami/nvme/kv}}
decode: {replicas: 2, instance_type: ml.p5en.48xlarge, parallel: {tensor: 2, data: 8, nodes: 2}}
gateway: {auth: keys, replicas: 3}
slo: {ttft_ms: 500}
drain_s: 60
# the last line has no end: "$(x)" `x` ä"""
FULL_SETTINGS = [
    *(FOLDER, CACHE, "keys_file=/fsx/secret/keys.json", "hf_token_file=/fsx/secret/token", "gres=true", "restarts=0"),
    *("partition=dev", "decode_partition=p5en", "account=research", "time=2-00:00:00"),
]
CASES = {
    "slurm-tiny-cpu-1p1d": ("tiny-cpu-1p1d", [*BARE, "prefill_partition=a", "decode_partition=b"]),
    "slurm-full": (FULL, FULL_SETTINGS),
    "slurm-local": ("gpt-oss-120b-p6-b200-4p1d", CONTAINER),
}


def script(file, settings) -> str:
    (text,) = deploy.texts(deploy.render(file, "slurm", settings), file, settings).values()
    return text


@pytest.mark.parametrize("name", CASES)
def test_whole_renderings(name, load):
    text, settings = CASES[name]
    said = script(load(text), settings)
    body = (Path(slurm.__file__).parent / "job.sh").read_text()
    assert said.endswith(body)  # bash as it stands, for every recipe
    snapshot.hold(f"{name}.txt", snapshot.joined({"job.sh": said.removesuffix(body)}))


@pytest.mark.parametrize("name", CASES)
def test_the_script_is_clean(name, load, tmp_path):
    text, settings = CASES[name]
    path = tmp_path / "job.sh"
    path.write_text(script(load(text), settings))
    for words in (["bash", "-n"], [str(Path(sys.executable).parent / "shellcheck")]):
        ran = subprocess.run([*words, str(path)], capture_output=True, text=True)
        assert (ran.returncode, ran.stdout + ran.stderr) == (0, "")


def test_directives_come_before_every_command(load):
    """sbatch stops reading at the first line that is none."""
    for text, settings in CASES.values():
        lines = script(load(text), settings).splitlines()
        directives = [n for n, line in enumerate(lines) if line.startswith("#SBATCH ")]
        assert all(line.startswith("#") for line in lines[: directives[-1]])


def test_the_same_bytes_in_every_process():
    code = (
        "from hyperpd import deploy, recipe; file = recipe.load('tiny-cpu-1p1d');"
        f"said = {BARE!r}; print(deploy.texts(deploy.render(file, 'slurm', said), file, said))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": s}, capture_output=True, check=True
        ).stdout
        for s in ("1", "2")
    }
    assert len(said) == 1
    assert said != {b""}


def test_rendering_costs_little(load):
    file = load(FULL)
    script(file, FULL_SETTINGS)
    began = time.process_time()
    script(file, FULL_SETTINGS)
    print(f"rendered in {(time.process_time() - began) * 1000:.0f} ms of CPU")


def test_every_field_has_a_fate():
    paths = list(leaves(recipe.Recipe))
    assert [path for path in paths if fate(slurm.FIELDS, path) is None] == []
    assert [key for key in slurm.FIELDS if not any(f"{path}.".startswith(f"{key}.") for path in paths)] == []


def test_what_is_lost_is_said(load):
    lost = deploy.render(load(FULL), "slurm", FULL_SETTINGS).not_expressed
    assert [one.split(":")[0] for one in lost] == [
        *("prefill.autoscaling.min", "prefill.autoscaling.max", "gateway.replicas", "slo.ttft_ms"),
        "gateway.auth",
    ]
    text = FULL.replace("\n# the last", "\nplacement: {same_zone: false}\n# the last").replace("fsx/adapters", "a")
    bare = [one for one in FULL_SETTINGS if "cache" not in one]
    given = [*bare, "mode=bare", "python=/x/python"]
    text = text.replace("placement: {same_zone: false}", "placement: {same_zone: true}")
    lost = deploy.render(load(text), "slurm", given).not_expressed
    assert [one.split(":")[0] for one in lost][-3:] == ["placement.same_zone", "gateway.auth", "image"]
    header = " ".join(line.removeprefix("#").strip() for line in script(load(text), given).splitlines()[:20])
    assert [one for one in lost if f"not expressed: {one} " not in header] == []


def base(file) -> list[str]:
    keys = ["keys_file=/fsx/secret/keys.json"] if file.recipe.gateway.auth == "keys" else []
    known = models.find(file.recipe.model.huggingface)
    token = ["hf_token_file=/fsx/secret/token"] if known and known.gated else []
    return [*CONTAINER, *keys, *token]


REFUSED = {  # every other recipe of the catalogue and of objects_recipes renders
    "efa-full-nodes": "model.claim: ",
    "efa-managed-tier": "prefill.kv_tiers.managed: ",
}


@pytest.mark.parametrize("name", objects_recipes.names())
def test_a_recipe_renders_or_is_refused_by_a_field(name):
    file = objects_recipes.load(name)
    if name in REFUSED:
        with pytest.raises(RecipeError, match=re.escape(REFUSED[name])):
            deploy.render(file, "slurm", base(file))
    else:
        assert script(file, base(file))


REFUSALS = [
    ([], "folder: missing; give --set folder=/fsx/…, which every node of the job has"),
    ([FOLDER, CACHE], "image: the recipe names none; give --set image=…, or mode=bare with python=…"),
    (
        [FOLDER, CACHE, "image=r.example/h@sha256:" + "a" * 64],
        "image: Enroot takes a tag, no digest; import it to a file and give that (--set image=/fsx/…/hyperpd.sqsh),"
        " or a tag of r.example/h@sha256:" + "a" * 64,
    ),
    ([FOLDER, "mode=bare"], "python: missing; mode bare needs it, as in --set python=/fsx/hyperpd/.venv/bin/python"),
    (
        [FOLDER, IMAGE],
        "cache_folder: missing; a container is gone with its step, and the model with it; give --set"
        " cache_folder=/fsx/…",
    ),
    ([*CONTAINER, "keys_file=/k"], "keys_file: the recipe says gateway.auth: none, so nobody would need a key"),
    ([*CONTAINER, "hf_token_file=/k"], "hf_token_file: nothing of this recipe comes from Hugging Face"),
    ([*CONTAINER, "gres=true"], "gres: it asks for GPUs, and the recipe says accelerator: cpu"),
    ([*CONTAINER, "time=0:05:00"], "time: 0:05:00 is 300 s, of which an orderly end takes up to 312 s; give more"),
]


@pytest.mark.parametrize(("settings", "problem"), REFUSALS)
def test_options_that_are_refused(settings, problem, load):
    with pytest.raises(RecipeError) as refused:
        deploy.render(load("tiny-cpu-1p1d"), "slurm", settings)
    assert problem in refused.value.problems


RECIPES = [
    ("prefill: {}\ndecode: {}", "prefill.instance_type: missing"),
    ("prefill: {instance_type: ml.nothing}\ndecode: {instance_type: ml.p5.48xlarge}", "prefill.instance_type: "),
    (
        "prefill: {instance_type: ml.g6.xlarge}\ndecode: {instance_type: ml.p5.48xlarge}",
        "prefill.instance_type: ml.g6.xlarge has no EFA",
    ),
    (
        "prefill: {instance_type: ml.p5.4xlarge, parallel: {tensor: 2}}\n"
        "decode: {instance_type: ml.p5.48xlarge, parallel: {tensor: 2}}",
        "prefill.parallel: 2 GPUs on one node, ml.p5.4xlarge has 1",
    ),
    (
        "prefill: {instance_type: ml.p5.48xlarge}\ndecode: {instance_type: ml.p5en.48xlarge}\n"
        "kv_transfer: {fabric: local}",
        "decode.instance_type: with kv_transfer.fabric: local all workers are on one node",
    ),
    (
        "prefill: {instance_type: ml.p5.48xlarge}\ndecode: {instance_type: ml.p5.48xlarge, parallel: {tensor: 8}}\n"
        "kv_transfer: {fabric: local}",
        "kv_transfer.fabric: local, but decode-0 needs 8 GPUs",
    ),
    (
        "prefill: {instance_type: ml.p5.48xlarge}\ndecode: {instance_type: ml.p5.48xlarge}\n"
        "kv_transfer: {fabric: infiniband}",
        "kv_transfer.fabric: HyperPod machines have no InfiniBand",
    ),
    ("aggregated: {instance_type: ml.p5.48xlarge}\ngateway: {auth: keys}", "gateway.auth: keys needs the key file"),
    (
        "model: {huggingface: meta-llama/Llama-3.3-70B-Instruct}\naggregated: {instance_type: ml.p5.48xlarge}",
        "model.huggingface: Hugging Face hands it out with a token alone; give --set hf_token_file=/fsx/…",
    ),
]


@pytest.mark.parametrize(("blocks", "problem"), RECIPES)
def test_recipes_that_are_refused(blocks, problem, load):
    path = "" if "model: " in blocks else "model: {path: /fsx/m}\n"
    file = load(f"version: 1\nname: x\n{path}{blocks}\n")
    with pytest.raises(RecipeError) as refused:
        deploy.render(file, "slurm", CONTAINER)
    assert [one for one in refused.value.problems if one.startswith(problem)] != []


@pytest.mark.parametrize(
    "setting",
    ["folder=relative", "folder=/a b", "folder=/a/%j", "time=5", "time=1:60:00", "partition=a,b", "account=$x"],
)
def test_options_that_a_shell_or_slurm_would_read_otherwise(setting, load):
    with pytest.raises(RecipeError, match=setting.partition("=")[0]):
        deploy.render(load("tiny-cpu-1p1d"), "slurm", [*CONTAINER[1:], setting])


def test_the_image_as_pyxis_takes_it():
    assert [
        pyxis_image(one) for one in ("ubuntu", "org/app:1", "r.example/org/app:1", "r:5000/app:1", "/fsx/a.sqsh")
    ] == [
        *("ubuntu", "org/app:1", "r.example#org/app:1", "r:5000#app:1", "/fsx/a.sqsh"),
    ]
    assert pyxis_image("me@r.example#app:1") == "me@r.example#app:1"


def test_ports_of_jobs_that_share_a_node_never_meet():
    """16 jobs at once, 16 workers of each on a node; off Slurm's own ports, Prometheus' and its exporters'."""
    taken = Counter(
        port + n
        for slot in range(JOBS)
        for kind, port in ((k, getattr(Ports().shifted(slot * JOB_STRIDE), k)) for k in Ports.__dataclass_fields__)
        for n in range(1 if kind.startswith("gateway") else 16)
    )
    assert taken.most_common(1)[0][1] == 1
    assert not taken.keys() & {*range(6817, 6821), 9090, 9091, 9093, 9100, 9200, 9400, 6379}
    slots = [(job + restart) % JOBS for job, restart in ((100, 0), (102, 0), (100, 1), (102, 2))]
    assert slots[0] != slots[1]  # a job of two components takes two ids
    assert slots[0] != slots[2]  # requeued, it tries others


def layouts() -> list[str]:
    """One recipe for each way to lay out workers over nodes."""
    found = {layout.components(objects_recipes.load(name).recipe): name for name in objects_recipes.names()}
    return [name for name in found.values() if name not in REFUSED]


@pytest.mark.parametrize("name", layouts())
def test_what_tasks_are_told(name, tmp_path):
    """Every worker starts once, on the node and with the ports and GPUs that it has alone; the gateway finds all."""
    file = objects_recipes.load(name)
    ran, shared = run(file, tmp_path)
    assert ran.code == 0, ran.log
    expected = [worker.name for worker in place(file.recipe, machines(file.recipe)).workers]
    front = "node" if layout.local(file.recipe) else "gateway"
    tasks = {task.settings["--role"]: task for task in ran.tasks if task.argv[1] == "hyperpd_runtime"}
    assert tasks[front].host == "node-1"
    if front == "node":
        assert [task.argv[3] for task in ran.tasks] == ["node"]
        return
    placed = list(_placed(file, ran))
    assert sorted(worker.name for _, worker in placed) == sorted(expected)
    used = Counter[tuple[str, str, int]]()
    for host, worker in placed:
        parallel = file.recipe.role(worker.role).parallel
        used.update((host, "gpu", gpu) for gpu in worker.gpu_ids)
        ports = [worker.admin_port, worker.data_parallel_port, *([] if worker.rank else [worker.api_port])]
        ports += range(worker.side_channel_port, worker.side_channel_port + parallel.data)
        used.update((host, "port", port) for port in ports)
        known = instances.find(str(file.recipe.role(worker.role).instance_type)).gpus if worker.gpu_ids else 0
        assert not worker.gpu_ids or max(worker.gpu_ids) < known
    assert [one for one, count in used.items() if count > 1] == []
    assert (
        len(
            {host for host, worker in placed if worker.role == "prefill"} & {h for h, w in placed if w.role == "decode"}
        )
        == 0
    )
    leaders = {(w.role, w.ordinal): w.address for _, w in placed if not w.rank}
    assert all(worker.leader == leaders[worker.role, worker.ordinal] for _, worker in placed if worker.rank)
    endpoints = f"file://{shared}/{file.recipe.name}-100/0/endpoints.json"
    assert {k: v for k, v in tasks["gateway"].settings.items() if v == endpoints} == {
        f"--{role}": endpoints for role in file.recipe.roles()
    }
    assert [task.argv[2] for task in ran.tasks if task.argv[1] == "hyperpd_runtime.endpoints"] == [
        str(Path(endpoints.removeprefix("file://")).parent)
    ]


def run(file, folder: Path, *settings: str, mode: tuple[str, ...] = (), **how: int):
    """A rendered job on the stand-ins, by default in mode bare, and its shared folder."""
    shared = folder / "shared"
    shared.mkdir(mode=0o700, exist_ok=True)
    keys = folder / "keys.json"
    keys.write_text("")
    keys.chmod(0o600)
    given = [f"folder={shared}", *(mode or ("mode=bare", f"python={folder}/bin/python3")), *settings]
    if file.recipe.gateway.auth == "keys":
        given.append(f"keys_file={keys}")
    groups = [component.nodes for component in layout.components(file.recipe)]
    return slurm_stand_in.run(script(file, given), folder, groups, **how), shared


def machines(parsed: recipe.Recipe) -> list[Machine]:
    """As many machines as the job has nodes, and the GPUs of each."""
    return [
        Machine(f"10.0.{component.number}.{n}", gpus=component.gpus)
        for component in layout.components(parsed)
        for n in range(component.nodes)
    ]


def _placed(file, ran) -> Iterator[tuple[str, Worker]]:
    """Host and worker of every task that is one, as the runtime itself places it."""
    for task in ran.tasks:
        if task.argv[1] == "hyperpd_runtime" and task.settings["--role"] != "gateway":
            said = runtime_settings.read(task.argv[2:], {}).environment
            assert said.address == f"10.0.0.{task.host.removeprefix('node-')}"
            ports = Ports().shifted(said.port_offset)
            assert said.front == (said.role != "aggregated")  # the gateway has the ports of the API alone
            (worker,) = place_one(
                file.recipe,
                said.role,  # type: ignore[arg-type]
                said.ordinal,
                Machine(said.address),
                ports,
                rank=said.node_rank,
                leader=said.leader,
                local_index=said.local_index,
            ).workers
            assert Path(said.state_dir).name == worker.name
            yield task.host, worker


def test_a_container_and_its_mounts(tmp_path, load):
    mode = (IMAGE, f"cache_folder={tmp_path}/cache")
    ran, shared = run(load(FULL.replace("fsx/adapters", "a")), tmp_path, *mode, mode=("mode=container",))
    assert ran.code == 0, ran.log
    assert len(ran.tasks) == 5 + 2 * 2 + 2
    for task in ran.tasks:
        assert task.srun["container-image"] == IMAGE.removeprefix("image=").replace(".com/", ".com#")
        assert task.srun["container-mounts"].split(",") == [
            *(f"{path}:{path}" for path in (shared, f"{tmp_path}/cache", "/opt/dlami/nvme/kv")),
            *(f"{path}:{path}:ro" for path in ("/a/sql", f"{tmp_path}/keys.json")),
        ]
        assert {"no-container-mount-home", "no-container-remap-root"} <= task.srun.keys()
        assert task.hf_home == f"{tmp_path}/cache/huggingface"
    (gateway,) = [task for task in ran.tasks if "gateway" in task.argv]
    assert gateway.settings["--keys-file"] == f"{tmp_path}/keys.json"


def test_each_run_of_a_job_has_its_own_folder_and_ports(tmp_path, load):
    file = load("tiny-cpu-1p1d")
    told = []
    for restart in (0, 1):
        ran, _ = run(file, tmp_path, restart=restart)
        (gateway,) = [task for task in ran.tasks if "gateway" in task.argv]
        told.append((gateway.settings["--port-offset"], Path(gateway.settings["--state-dir"]).parent.name))
    assert told == [(str(100 % JOBS * JOB_STRIDE), "0"), (str(101 % JOBS * JOB_STRIDE), "1")]


def test_what_a_killed_run_left_is_gone_before_this_one_begins(tmp_path, load):
    """A cluster made again on the same file system counts its jobs from 1 again."""
    file = load("tiny-cpu-1p1d")
    old = tmp_path / "shared" / "tiny-cpu-1p1d-100" / "0"
    (old / "decode-7").mkdir(parents=True)
    (tmp_path / "shared").chmod(0o700)
    left = [old / "stopping", old / "endpoints.json", old / "decode-7" / "fleet.json"]
    for path in left:
        path.write_text("{}")
    ran, _ = run(file, tmp_path)
    assert (ran.code, len(ran.tasks)) == (0, 4), ran.log
    assert [path.name for path in left if path.exists()] == []


def test_a_worker_that_fails_too_often_ends_the_job_and_is_named(tmp_path, load):
    ran, _ = run(load("tiny-cpu-aggregated"), tmp_path, "restarts=0", code=4)
    assert ran.code == 4
    assert re.search(
        "(aggregated-0|gateway|endpoints) failed with exit code 4; 0 restarts left. Its last lines ", ran.log
    )
    assert "ended with exit code 4" in ran.log


def test_the_command_of_the_page_renders(tmp_path):
    """As it is written in examples/slurm; only the folder of the script is another."""
    page = (Path(__file__).parents[2] / "examples" / "slurm" / "README.md").read_text()
    commands = re.search(r"```\n(.*?)```", page, re.DOTALL)
    assert commands
    lines = commands[1].replace("\\\n", " ").splitlines()
    (words,) = [shlex.split(line) for line in lines if line.startswith("hyperpd render ")]
    words[words.index("--out") + 1] = str(tmp_path)
    subprocess.run([sys.executable, "-c", "from hyperpd.cli.main import main; main()", *words[1:]], check=True)
    made = {word for line in lines if line.startswith("mkdir -m 700 ") for word in line.split()[3:]}
    said = dict(word.split("=", 1) for word in words if "=" in word)
    assert {said["folder"], said["cache_folder"]} <= made
    assert subprocess.run(["bash", "-n", str(tmp_path / "job.sh")]).returncode == 0


def test_the_cache_is_made_where_it_is_missing_and_its_users_alone(tmp_path, load):
    file, cache = load("tiny-cpu-1p1d"), tmp_path / "a" / "cache"
    ran, _ = run(file, tmp_path, f"cache_folder={cache}")
    assert (ran.code, cache.stat().st_mode & 0o777) == (0, 0o700), ran.log
    cache.chmod(0o770)
    ran, _ = run(file, tmp_path, f"cache_folder={cache}")
    assert (ran.code, ran.tasks) == (1, ())
    assert f"{cache}: has to be a folder of yours that nobody else may write to" in ran.log


@pytest.mark.parametrize("given", [(), ("cache_folder={}/.cache",)], ids=["home", "cache_folder"])
def test_compiled_code_that_others_may_write_is_not_run(given, tmp_path, load):
    file, compiled = load("tiny-cpu-1p1d"), tmp_path / ".cache" / "torchinductor"
    said = [one.format(tmp_path) for one in given]
    ran, _ = run(file, tmp_path, *said)
    assert (ran.code, compiled.stat().st_mode & 0o777) == (0, 0o700), ran.log
    compiled.chmod(0o720)
    ran, _ = run(file, tmp_path, *said)
    assert (ran.code, ran.tasks) == (1, ())
    assert f"{compiled}: has to be a folder of yours that nobody else may write to" in ran.log


@pytest.mark.parametrize("what", ["folder", "keys"])
def test_what_others_may_write_or_read_is_refused(what, tmp_path, load):
    file = load(
        "version: 1\nname: x\naccelerator: cpu\nmodel: {generated: tiny-llama}\naggregated: {}\ngateway: {auth: keys}\n"
    )
    (tmp_path / "shared").mkdir()
    if what == "folder":
        (tmp_path / "shared").chmod(0o777)
        ran, _ = run(file, tmp_path)
        assert "shared: has to be a folder of yours that nobody else may write to" in ran.log
    else:
        shared, keys = tmp_path / "shared", tmp_path / "keys.json"
        keys.write_text("")
        keys.chmod(0o644)
        given = [f"folder={shared}", "mode=bare", f"python={tmp_path}/bin/python3", f"keys_file={keys}"]
        ran = slurm_stand_in.run(script(file, given), tmp_path, [1])
        assert "keys.json: others may read it; chmod 600" in ran.log
    assert (ran.code, ran.tasks) == (1, ())


def test_no_secret_is_in_the_script(load):
    text = script(load(FULL), FULL_SETTINGS)
    assert "HF_TOKEN=" not in text
    assert "HF_TOKEN_PATH=/fsx/secret/token" in text


def test_the_end_before_a_time_limit_is_as_long_as_it_takes(load):
    """The gateway's two drains, then a prefill's lease and drain, and margins; whichever worker takes longest."""
    parsed = load("tiny-cpu-1p1d").recipe
    assert refusals.ending_s(parsed) >= 2 * parsed.drain_s + parsed.kv_transfer.lease_s + parsed.drain_s

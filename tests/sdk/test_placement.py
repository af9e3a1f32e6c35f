"""Placement: nothing that must be unique per machine is given twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperpd.errors import CapacityError, RecipeError
from hyperpd.placement import Machine, Ports, place, place_one
from hyperpd.recipe import Recipe, parse


def recipe(
    prefill: int = 1, decode: int = 1, tensor: int = 1, accelerator: str = "gpu", fabric: str = "local"
) -> Recipe:
    role = {"parallel": {"tensor": tensor}}
    return parse(
        {
            "version": 1,
            "name": "pair",
            "accelerator": accelerator,
            "model": {"generated": "tiny-llama"},
            "prefill": {"replicas": prefill, **role},
            "decode": {"replicas": decode, **role},
            "kv_transfer": {"fabric": "tcp" if accelerator == "cpu" else fabric},
        },
        "test",
    )


def wide(role: str = "decode", **parallel: object) -> Recipe:
    document = {"version": 1, "name": "wide", "model": {"generated": "tiny-moe"}, "kv_transfer": {"fabric": "tcp"}}
    roles = {"prefill": {}, "decode": {}} if role == "decode" else {}
    return parse(document | roles | {role: {"parallel": parallel}}, "test")


def test_one_pair_on_one_machine() -> None:
    placement = place(recipe())
    prefill, decode = placement.workers
    assert (prefill.name, prefill.url, prefill.gpu_ids) == ("prefill-0", "http://127.0.0.1:8100", (0,))
    assert (decode.name, decode.url, decode.gpu_ids) == ("decode-0", "http://127.0.0.1:8101", (1,))
    assert (prefill.side_channel_port, decode.side_channel_port) == (5600, 5601)
    assert (prefill.admin_port, decode.admin_port) == (8300, 8301)
    assert (placement.api_port, placement.admin_port) == (8080, 8081)


def test_workers_go_round_the_machines() -> None:
    placement = place(recipe(prefill=2, decode=2, tensor=4), (Machine("10.0.0.1"), Machine("10.0.0.2")))
    assert [(w.name, w.node, w.address, w.gpu_ids) for w in placement.workers] == [
        ("prefill-0", 0, "10.0.0.1", (0, 1, 2, 3)),
        ("prefill-1", 1, "10.0.0.2", (0, 1, 2, 3)),
        ("decode-0", 0, "10.0.0.1", (4, 5, 6, 7)),
        ("decode-1", 1, "10.0.0.2", (4, 5, 6, 7)),
    ]


def test_a_cpu_worker_has_no_gpu() -> None:
    assert all(worker.gpu_ids == () for worker in place(recipe(accelerator="cpu", tensor=2)).workers)


def test_a_worker_that_fits_on_no_machine() -> None:
    machines = (Machine("10.0.0.1", gpus=8), Machine("10.0.0.2", gpus=3))
    assert [worker.node for worker in place(recipe(tensor=4), machines).workers] == [0, 0]
    with pytest.raises(CapacityError, match=r"prefill-2 needs 4 GPUs of one machine; free: 10.0.0.1 0, 10.0.0.2 3"):
        place(recipe(prefill=3, decode=1, tensor=4), machines)


def test_a_container_is_a_machine_of_its_own() -> None:
    (worker,) = place_one(recipe(prefill=2, decode=2, tensor=4), "decode", 1, Machine("10.0.0.9")).workers
    assert (worker.name, worker.address, worker.gpu_ids) == ("decode-1", "10.0.0.9", (0, 1, 2, 3))
    assert (worker.api_port, worker.side_channel_port) == (8100, 5600)
    with pytest.raises(RecipeError, match="no decode worker 2; it has prefill 0 to 1, decode 0 to 1"):
        place_one(recipe(prefill=2, decode=2), "decode", 2, Machine())


def test_workers_are_found_by_role_and_by_name() -> None:
    placement = place(recipe(prefill=2, decode=1))
    assert [worker.name for worker in placement.of("prefill")] == ["prefill-0", "prefill-1"]
    assert placement.worker("decode-0") is placement.of("decode")[0]
    assert placement.worker("decode-1") is None


@given(
    prefill=st.integers(1, 8),
    decode=st.integers(1, 8),
    tensor=st.integers(1, 8),
    machines=st.integers(1, 5),
    offset=st.integers(0, 50000),
)
def test_no_port_and_no_gpu_is_given_twice(prefill: int, decode: int, tensor: int, machines: int, offset: int) -> None:
    cpus = tuple(range(8, 8 + 64))
    addresses = [Machine(f"10.0.0.{number}", cpus=cpus) for number in range(machines)]
    plain = place(recipe(prefill, decode, tensor), addresses)
    moved = place(recipe(prefill, decode, tensor), addresses, Ports().shifted(offset))
    assert len({worker.name for worker in plain.workers}) == prefill + decode
    for node in range(machines):
        here = [worker for worker in plain.workers if worker.node == node]
        ports = [port for w in here for port in (w.api_port, w.admin_port, w.side_channel_port)]
        if node == 0:
            ports += [plain.api_port, plain.admin_port]
        gpus = [gpu for worker in here for gpu in worker.gpu_ids]
        assert len(ports) == len(set(ports))
        given = [cpu for worker in here for cpu in worker.cpu_ids]
        assert len(given) == len(set(given))
        if len(here) > 1 and len(here) * (2 + tensor) <= len(cpus):
            assert sorted(given) == list(cpus)
            assert all(len(worker.cpu_ids) >= 2 + tensor for worker in here)
        else:
            assert given == []
        assert gpus == list(range(len(here) * tensor))
    assert [w.api_port - offset for w in moved.workers] == [w.api_port for w in plain.workers]
    assert moved.api_port - offset == plain.api_port


def test_on_efa_prefill_and_decode_share_no_machine() -> None:
    machines = tuple(Machine(f"10.0.0.{n}", gpus=8) for n in range(1, 4))
    workers = place(recipe(prefill=8, decode=2, tensor=1, fabric="efa"), machines).workers
    assert {worker.node for worker in workers if worker.role == "prefill"} == {0}  # filled, not spread
    assert {worker.node for worker in workers if worker.role == "decode"} == {1}
    with pytest.raises(CapacityError, match=r"decode-0 needs 1 GPUs of one machine, without the other role \(EFA"):
        place(recipe(fabric="efa"), machines[:1])


def test_the_machines_of_one_worker() -> None:
    machines = tuple(Machine(f"10.0.0.{n}", gpus=8) for n in range(1, 4))
    prefill, first, second = place(wide(data=16, nodes=2, expert=True), machines).workers
    assert (first.name, first.node, first.rank, first.leader, first.gpu_ids) == ("decode-0", 1, 0, "", tuple(range(8)))
    assert (second.name, second.node, second.rank, second.leader) == ("decode-0.1", 2, 1, "10.0.0.2")
    assert prefill.gpu_ids == (0,)
    with pytest.raises(CapacityError, match="decode-0 needs 8 GPUs of one machine on each of 2"):
        place(wide(data=16, nodes=2, expert=True), machines[:2])


def test_side_channels_of_data_parallel_ranks_do_not_meet() -> None:
    """vLLM adds a rank to the port it is given."""
    machine = Machine(gpus=8)
    workers = place(wide("aggregated", data=4).model_copy(), (machine,)).workers
    assert [worker.side_channel_port for worker in workers] == [5600]
    two = wide(data=3)
    two = two.model_copy(update={"decode": two.role("decode").model_copy(update={"replicas": 2})})
    assert [worker.side_channel_port for worker in place(two, (machine,)).workers] == [5600, 5601, 5604]


def test_a_part_needs_to_know_its_first_machine() -> None:
    pair = wide(data=2, nodes=2)
    (part,) = place_one(pair, "decode", 0, Machine("10.0.0.2"), rank=1, leader="decode-0.example").workers
    assert (part.rank, part.leader, part.api_port) == (1, "decode-0.example", 8100)
    with pytest.raises(RecipeError, match="node-rank 1: give leader"):
        place_one(pair, "decode", 0, Machine("10.0.0.2"), rank=1)
    with pytest.raises(
        RecipeError, match="no decode worker 0 part 2; it has prefill 0 to 0, decode 0 to 0 on 2 machines"
    ):
        place_one(pair, "decode", 0, Machine("10.0.0.2"), rank=2, leader="x")


def test_a_worker_beside_others_leaves_them_the_first_ports_and_gpus() -> None:
    """place_one with a local index gives what place gives the workers of one machine, in whatever process it runs."""
    pair = recipe(prefill=2, decode=2, tensor=2)
    together = place(pair).workers
    alone = [
        place_one(pair, worker.role, worker.ordinal, Machine(), local_index=index).workers[0]
        for index, worker in enumerate(together)
    ]
    assert alone == list(together)
    ranks = wide(data=4)
    beside = place_one(ranks, "decode", 0, Machine(), local_index=2).workers[0]
    assert beside.side_channel_port == 5600 + 2 * 4  # each of those before it may have four
    assert beside.gpu_ids == (8, 9, 10, 11)

# SPDX-License-Identifier: Apache-2.0
"""The running node when memory or time is short, or the network's output is no number."""

import resource
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from test_endings import ended, node_process
from test_node import FAILURE, SUCCESS, Bench

from occany_core.network import OccAnyNetwork
from occany_ros.budget import EVERY_OTHER, FEWER_VIEWS, NARROWER, STAGES_OF_RENDERED_VIEWS
from occany_ros.memory_use import PeakMemory, is_out_of_memory, resident_mb
from occany_ros.msg import VoxelGrid

PATIENCE_S = 60.0
TOO_MUCH = 2**60
"""More bytes than any machine has: PyTorch and NumPy raise their own errors."""


@pytest.fixture
def bench(ros):
    return Bench(ros)


class Faulty:
    """The network's own call, which fails or lies as often as it is told."""

    def __init__(self, monkeypatch, call="render"):
        self.own = getattr(OccAnyNetwork, call)
        self.failures = 0
        self.fault = None
        monkeypatch.setattr(OccAnyNetwork, call, lambda network, *a, **k: self(network, *a, **k))

    def __call__(self, network, *args, **options):
        result = self.own(network, *args, **options)
        if not self.failures:
            return result
        self.failures -= 1
        return self.fault(result)


def run_out_of_memory(result):
    return torch.empty(TOO_MUCH, dtype=torch.uint8)


def without_numbers(result):
    result.points_cam[0, 0, 0, 0, 2] = float("nan")
    return result


def test_an_allocation_that_fails_is_told_from_other_errors():
    for allocate in (
        lambda: torch.empty(TOO_MUCH, dtype=torch.uint8),
        lambda: __import__("numpy").empty(TOO_MUCH, "u1"),
        lambda: bytearray(TOO_MUCH),
    ):
        with pytest.raises((RuntimeError, MemoryError)) as caught:
            allocate()
        assert is_out_of_memory(caught.value)
    for words in ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED when calling"):
        assert is_out_of_memory(RuntimeError(words))
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))


def test_the_highest_use_of_memory_is_that_since_the_start():
    memory = PeakMemory(torch.device("cpu"))
    memory.start()
    before = memory.highest_mb()
    block = np.ones(200_000_000, np.uint8)
    assert memory.highest_mb() >= before + 190
    del block
    assert memory.highest_mb() >= before + 190
    memory.start()
    assert memory.highest_mb() < before + 100


def test_where_the_highest_use_cannot_be_forgotten_the_present_one_counts(monkeypatch):
    def refuse(path, text):
        raise PermissionError(path)

    monkeypatch.setattr(Path, "write_text", refuse)
    memory = PeakMemory(torch.device("cpu"))
    memory.start()
    assert memory.highest_mb() == pytest.approx(resident_mb(), abs=20)


def test_out_of_memory_costs_no_grid_does_less_and_grows_back(bench, monkeypatch):
    faulty = Faulty(monkeypatch)
    faulty.fault = run_out_of_memory
    node = bench.running(transport="compressed", novel_views__steps=4)
    bench.send_until_grid(["camera"], 1000 * 10**9)
    bench.ros.spin_until(lambda: bench.last_status().novel_views == 4, PATIENCE_S, "all views")
    assert bench.last_status().budget_level == 0
    faulty.failures = 1
    bench.send(["camera"], 1100 * 10**9)
    bench.ros.spin_until(lambda: not faulty.failures, PATIENCE_S, "the injected failure")
    bench.ros.spin_until(
        lambda: bench.last_status().budget_level == FEWER_VIEWS, PATIENCE_S, "the first rung"
    )
    assert bench.last_status().budget_reason == "out of memory on cpu"
    assert bench.last_status().novel_views == 1
    assert bench.last_status().last_error == ""
    finding = bench.finding(
        "budget", "budget level 1 of 6, fewer rendered views: out of memory on cpu"
    )
    assert finding.level == b"\x01"
    node._inference.budget._patience = 2
    step = 0
    while bench.last_status().budget_level:
        assert step < 20, "the work does not grow back"
        bench.send_until_grid(["camera"], (1200 + step) * 10**9)
        bench.ros.spin_for(0.1)
        step += 1
    bench.send_until_grid(["camera"], 1300 * 10**9)
    bench.ros.spin_until(lambda: bench.last_status().novel_views == 4, PATIENCE_S, "all views")
    bench.finding("budget", "the work is as set")
    assert node.fatal == ""


def test_memory_that_runs_out_twice_is_one_sentence_and_the_node_survives(bench, monkeypatch):
    faulty = Faulty(monkeypatch)
    faulty.fault = run_out_of_memory
    node = bench.running(transport="compressed", novel_views__steps=4)
    bench.send(["camera"], 1000 * 10**9)
    bench.ros.spin_until(lambda: bench.grids, PATIENCE_S, "the good grid")
    faulty.failures = 2
    bench.send(["camera"], 1100 * 10**9)
    finding = bench.finding(
        "pipeline", "out of memory on cpu even at budget level 1, fewer rendered views"
    )
    assert finding.level == b"\x02"
    assert "set budget.memory_mb, or lower images.width" in finding.message
    bench.send_until_grid(["camera"], 1200 * 10**9)
    bench.finding("pipeline", "grids per second")
    assert node.fatal == ""


@pytest.mark.ros
def test_a_process_that_really_has_no_memory_left_lives_on(bench):
    """The system refuses more memory than the node has, and 400 MB; the grid would need 800."""
    process = node_process(autostart=True)
    try:
        for kind, topic in (
            (VoxelGrid, "/occany/output/voxel_grid"),
            (DiagnosticArray, "/diagnostics"),
        ):
            bench.listen(kind, topic)
        bench.send_until_grid(["camera"], 1000 * 10**9)
        rows = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        (size,) = (int(row.split()[1]) * 1024 for row in rows if row.startswith("VmSize"))
        most = size + 400_000_000
        resource.prlimit(process.pid, resource.RLIMIT_AS, (most, most))
        assert set_shape(bench, [460, 460, 460])
        bench.send(["camera"], 2000 * 10**9)
        finding = bench.finding("pipeline", "out of memory on cpu even at", PATIENCE_S)
        assert "lower images.width, window.view_sets or voxels.shape" in finding.message
        assert set_shape(bench, [40, 40, 8])
        assert bench.send_until_grid(["camera"], 3000 * 10**9, count=2).size_x == 40
        process.terminate()
        code, said = ended(process)
    finally:
        process.kill()
    assert "Traceback" not in said
    assert code == 0


def set_shape(bench, cells):
    client = bench.tester.create_client(SetParameters, "/occany/set_parameters")
    bench.ros.spin_until(client.service_is_ready, PATIENCE_S, "the node's parameters")
    shape = Parameter("voxels.shape", value=cells).to_parameter_msg()
    future = client.call_async(SetParameters.Request(parameters=[shape]))
    bench.ros.spin_until(future.done, PATIENCE_S, "an answer")
    return future.result().results[0].successful


def test_memory_that_does_not_suffice_at_the_start_fails_in_words(bench, monkeypatch):
    faulty = Faulty(monkeypatch, "encode")
    faulty.fault, faulty.failures = run_out_of_memory, 1
    node = bench.make()
    assert node.trigger_configure() == FAILURE
    assert "out of memory on cpu with the first 1 pictures 64 px wide; lower images.width" in (
        node._status.last_error
    )
    assert node.trigger_configure() == SUCCESS


def test_a_time_limit_that_cannot_be_kept_ends_at_every_other_set_and_is_lifted_live(bench):
    node = bench.running(
        ("left", "right"), transport="compressed", novel_views__steps=2, budget__latency_ms=0.5
    )
    for step in range(40):
        bench.send_until_grid(["left", "right"], (1000 + step) * 10**9)
        if node._inference.budget.step.level == EVERY_OTHER:
            break
    finding = bench.finding("budget", "budget level 6 of 6, every other view set: cycles took")
    assert "and budget.latency_ms is 0" in finding.message
    skipped = bench.last_status().skipped
    bench.send_until_grid(["left", "right"], 2000 * 10**9, count=3)
    bench.ros.spin_until(
        lambda: bench.last_status().skipped > skipped, PATIENCE_S, "view sets left out"
    )
    node._inference.budget._patience = 1
    assert bench.set(node, budget__latency_ms=0.0).successful
    for step in range(40):
        bench.send_until_grid(["left", "right"], (3000 + step) * 10**9)
        if node._inference.budget.step.level == 0:
            break
    bench.finding("budget", "the work is as set")


def test_a_memory_limit_below_what_is_needed_narrows_the_pictures(bench):
    node = bench.running(transport="compressed", budget__memory_mb=1)
    bench.send_until_grid(["camera"], 10**12, count=2)
    assert node._inference.budget.step.level == NARROWER
    finding = bench.finding("budget", "narrower pictures: a cycle took")
    assert "MB and budget.memory_mb is 1" in finding.message
    bench.ros.spin_until(lambda: bench.last_status().memory_mb > 1, PATIENCE_S, "the figure")
    assert bench.last_status().memory_mb == pytest.approx(resident_mb(), rel=0.5)


@pytest.mark.parametrize("call", ["render", "render_novel"])
def test_output_that_is_no_number_gives_a_sentence_and_no_grid(bench, monkeypatch, call):
    faulty = Faulty(monkeypatch, call)
    faulty.fault = without_numbers
    node = bench.running(transport="compressed", novel_views__steps=1, window__view_sets=2)
    bench.send(["camera"], 1000 * 10**9)
    bench.ros.spin_until(lambda: bench.grids, PATIENCE_S, "the good grid")
    faulty.failures = 1
    bench.send(["camera"], 1100 * 10**9)
    which = "observed" if call == "render" else "rendered"
    finding = bench.finding("geometry", f"the network's output for {which} view 0 is not finite")
    assert finding.level == b"\x02"
    assert "set runtime.dtype to float32" in finding.message
    assert faulty.failures == 0
    assert len(bench.grids) == 1
    bench.send_until_grid(["camera"], 1200 * 10**9, count=2)
    bench.received["/diagnostics"].clear()
    assert bench.finding("geometry", "no transform").level == b"\x01"
    assert bench.last_status().last_error == ""
    assert node.fatal == ""


def test_a_time_limit_is_kept_by_rendering_as_many_views_as_fit(bench):
    node = bench.running(transport="compressed", novel_views__steps=12, novel_views__chunk=1)
    bench.send_until_grid(["camera"], 1000 * 10**9, count=5)
    cost = node._status.history.cost
    assert cost.rendered == 12
    fits_half = cost.total_ms - 6 * (cost.total_ms - rest_ms(cost)) / 12
    assert bench.set(node, budget__latency_ms=float(fits_half)).successful
    costs = []
    for step in range(60):
        bench.send_until_grid(["camera"], (2000 + step) * 10**9)
        costs.append(node._status.history.cost)
        # Others use this machine too, so the time that fits is not always the same.
        newest = sorted(cost.total_ms for cost in costs[-3:])
        if node._inference.budget.step.level and newest[len(newest) // 2] <= 1.1 * fits_half:
            break
    else:
        assert node._inference.budget.step.level == EVERY_OTHER, "neither kept nor the last rung"
    assert costs[-1].rendered < 12
    finding = bench.finding("budget", "cycles took")
    assert f"ms and budget.latency_ms is {fits_half:.0f}" in finding.message


def rest_ms(cost):
    """What a cycle takes beside its rendered views."""
    return cost.total_ms - sum(cost.stages_ms[stage] for stage in STAGES_OF_RENDERED_VIEWS)

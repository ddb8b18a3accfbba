# SPDX-License-Identifier: Apache-2.0
"""Two processes (gloo, CPU) train like one with batches twice as large, replicated and sharded."""

import os
import socket
import subprocess
import sys

import pytest
import torch

PROGRAM = """
import dataclasses, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from training_worlds import CPU, FROM_SCRATCH, Draw, pack, recipe, released_like, rendering, stage
from training_worlds import supply
from occany_core.training.loop import Training
from occany_core.training.ranks import joined, whole_weights

kind, spreading, views, out, *stops = sys.argv[1:]
# Terms are means over the valid pixels of each process: where all are valid, the mean of means is
# the mean over both.
everywhere = dataclasses.replace(pack(1 if kind == "released" else 4))
everywhere = dataclasses.replace(everywhere, depth=everywhere.depth.clip(2.0, 40.0))
pair = (Draw(kind="sequence", views=(3, 3)),)
if kind == "released":
    frozen = stage(2, pair, trained=("decoder.", "heads."))
    what = released_like(frozen, rendering(2, pair, "held_out"), views_per_step=int(views))
else:
    what = recipe(stage(2, pair), rendering(2, pair), views_per_step=int(views))
folder = Path(out)
with joined(CPU, spreading) as ranks:
    for seconds in [*map(float, stops), 1e9]:
        training = Training(what, supply(folder, everywhere), folder, ranks)
        training.run(seconds)
    whole = whole_weights(training.network)
    if ranks.is_first:
        torch.save({"weights": whole, "views": training.progress.views}, folder / "result.pt")
"""


def start(kind: str, spreading: str, views: int, folder, processes: int, stops=()) -> dict:
    """Run the program in one or two processes, as `torchrun` does."""
    folder.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    path = os.pathsep.join(sys.path)
    started = []
    for rank in range(processes):
        place = {"WORLD_SIZE": processes, "RANK": rank, "LOCAL_RANK": rank}
        env = os.environ | {name: str(value) for name, value in place.items()}
        env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "PYTHONPATH": path}
        words = [kind, spreading, str(views), str(folder), *map(str, stops)]
        started.append(subprocess.Popen([sys.executable, "-c", PROGRAM, *words], env=env))
    assert [process.wait(timeout=300) for process in started] == [0] * processes
    return torch.load(folder / "result.pt", weights_only=True)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Weights of one process with the doubled batch."""
    return {
        kind: start(kind, "replicate", 12, tmp_path_factory.mktemp(kind), 1)
        for kind in ("tiny", "released")
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tiny", "released"])
@pytest.mark.parametrize("spreading", ["replicate", "shard"])
def test_two_processes_equal_one_with_the_doubled_batch(kind, spreading, alone, tmp_path):
    both = start(kind, spreading, 6, tmp_path, 2, stops=(0.0,))
    assert both["views"] == alone[kind]["views"]
    assert both["weights"].keys() == alone[kind]["weights"].keys()
    for name, value in alone[kind]["weights"].items():
        # Adam turns rounding of near-zero gradients into steps of the learning rate.
        close = (both["weights"][name] - value).abs() < 2e-4
        assert close.float().mean() > 0.995, name

# SPDX-License-Identifier: Apache-2.0
"""`occany bench`: measure and compare, one sub-verb each."""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from occany_core.bench import model, precision, streets, tracking, training, voxels
from occany_core.bench.golden import report
from occany_core.bench.golden.runner import run as run_golden
from occany_core.checkpoints import load_model
from occany_core.checkpoints.store import choose_device
from occany_core.cli import held_back_streets, settings_arguments
from occany_core.errors import ParityError
from occany_core.training.ranks import joined

NAME = "bench"
HELP = "measure this machine, and compare our numbers with golden ones"
EXAMPLE = "occany bench golden path/to/golden --verbose"


@dataclass(frozen=True)
class SubVerb:
    """One measurement."""

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sub-verbs; each has its own options."""
    subverbs = parser.add_subparsers(metavar="WHAT", required=True)
    for name, subverb in SUB_VERBS.items():
        one = subverbs.add_parser(
            name, help=subverb.help, description=f"{subverb.help[0].upper()}{subverb.help[1:]}."
        )
        subverb.add_arguments(one)
        one.add_argument(
            "--debug",
            action="store_true",
            default=argparse.SUPPRESS,  # it may also stand before WHAT
            help="show where a failure comes from",
        )
        one.set_defaults(measure=subverb.run)


def run(arguments: argparse.Namespace) -> None:
    """Run the chosen sub-verb.

    Raises:
        OccAnyError: Its input is wrong, or what it compares differs.
    """
    arguments.measure(arguments)


def _golden_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="golden set; its generator of weights is run"
    )
    parser.add_argument(
        "--verbose", action="store_true", help="show every stage, not only one line per file"
    )
    _json_argument(parser)


def _golden(arguments: argparse.Namespace) -> None:
    """Compare with a golden set and print a table.

    Raises:
        InputError: The folder holds no golden set.
        ParityError: A stage differs by more than its tolerance.
    """
    stages = run_golden(arguments.folder, _progress)
    print(file=sys.stderr)
    print(report.table(stages) if arguments.verbose else report.overview(stages))
    print(report.summary(stages))
    if arguments.json:
        print(json.dumps(report.as_json(stages)))
    failed = report.counts(stages)["FAIL"]
    if failed:
        raise ParityError(
            f"{failed} of {len(stages)} stages differ from {arguments.folder} by more than their "
            "tolerance; they are marked FAIL above"
        )


def _progress(name: str, done: int, total: int) -> None:
    print(f"\r{done} of {total} checks done, now {name:40}", end="", file=sys.stderr, flush=True)


def _json_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object as the last line"
    )


def _model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--size", choices=list(model.SIZES), default="tiny", help="full is the released network"
    )
    parser.add_argument("--frames", type=int, default=6, help="observed views")
    parser.add_argument("--views", type=int, default=6, help="rendered views")
    parser.add_argument("--picture", type=int, nargs=2, default=(512, 288), metavar=("W", "H"))
    parser.add_argument("--repeats", type=int, default=1, help="runs; medians are reported")
    settings_arguments.add_arguments(parser)
    _json_argument(parser)


def _model(arguments: argparse.Namespace) -> None:
    """Time a reconstruction with random weights.

    Raises:
        ConfigError: A size, count or setting that cannot be.
    """
    config = settings_arguments.read(arguments)
    if config.runtime.threads:
        torch.set_num_threads(config.runtime.threads)
    width, height = arguments.picture
    timing = model.measure(
        arguments.size,
        (arguments.frames, arguments.views),
        (height, width),
        config,
        arguments.repeats,
    )
    print(
        f"{timing.size} network, {timing.frames} frames and {timing.views} views of "
        f"{timing.width}x{timing.height}, {timing.dtype}, {timing.device}, "
        f"{timing.threads} threads"
    )
    print(f"\n{'stage':14}{'seconds':>9}{'GFLOP':>9}{'GFLOP/s':>9}{'weights [GB]':>14}")
    for name, stage in timing.stages.items():
        print(
            f"{name:14}{stage.seconds:9.3f}{stage.gflop:9.0f}{stage.gflop_per_s:9.1f}"
            f"{stage.weights_gb:14.2f}"
        )
    print(
        f"\ntotal {timing.total_s:.3f} s, peak memory {timing.peak_gb:.2f} GB; one large matrix "
        f"product runs at {timing.peak_gflop_per_s:.0f} GFLOP/s here"
    )
    if arguments.json:
        print(json.dumps(timing.to_dict()))


def _voxels_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5, help="runs; medians are reported")
    _json_argument(parser)


def _voxels(arguments: argparse.Namespace) -> None:
    """Time voxelisation and pooling on one thread.

    Raises:
        InputError: No points or no repetitions.
    """
    timing = voxels.measure(arguments.points, arguments.repeats)
    print(f"{timing.points} points, grid {'x'.join(map(str, timing.shape))}, one thread")
    for name, seconds in timing.seconds_per_million_points.items():
        print(f"{name:16}{seconds:8.3f} s per million points")
    for name, seconds in timing.seconds_per_grid.items():
        print(f"{name:16}{seconds:8.3f} s per grid")
    if arguments.json:
        print(json.dumps(asdict(timing)))


def _streets_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--worlds", type=int, default=5, help="medians over so many are reported")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:N or auto")
    _json_argument(parser)


def _streets(arguments: argparse.Namespace) -> None:
    """Time the rendering of synthetic streets.

    Raises:
        InputError: No worlds.
        ConfigError: The device does not exist.
    """
    timing = streets.measure(arguments.worlds, choose_device(arguments.device))
    print(f"{timing.worlds} worlds, {timing.device}, {timing.threads} threads")
    print(f"making a world {timing.build_s:.3f} s")
    for rate in timing.rates:
        print(
            f"{rate.width}x{rate.height}: {rate.pictures:7.1f} pictures/s, "
            f"{rate.depth:7.1f} depth maps/s"
        )
    if arguments.json:
        print(json.dumps(asdict(timing)))


def _precision_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="default", help="'default' or a .safetensors file")
    held_back_streets.add_arguments(parser)
    settings_arguments.add_arguments(parser)
    _json_argument(parser)


def _precision(arguments: argparse.Namespace) -> None:
    """Compare bfloat16 with float32 on held-back streets.

    Raises:
        ConfigError: The limit is out of range.
    """
    held_back_streets.check(arguments)
    config = settings_arguments.read(arguments)
    weights = load_model(arguments.model, config.runtime.device)
    found = precision.measure(weights, arguments.limit, config, held_back_streets.show_progress)
    print(f"\n{'error relative to the RMS value':32}{'RMS':>9}{'largest':>9}")
    for name, stage in found.stages.items():
        print(f"{name:32}{stage.rms:9.5f}{stage.largest:9.5f}")
    for dtype, iou in found.iou.items():
        print(f"IoU with the truth, {dtype:12}{iou:9.2f} %")
    print(f"IoU of the two with each other  {found.agreement:9.2f} %")
    if arguments.json:
        print(json.dumps(found.to_dict()))


def _training_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--recipe", default="tiny", help="tiny, released or paper")
    parser.add_argument("--stage", metavar="NAME", help="only this stage of the recipe")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[],
        help="one value of the recipe; may be repeated (--set objective.teacher=streets)",
    )  # fmt: skip
    parser.add_argument("--picture", type=int, nargs=2, default=(144, 80), metavar=("W", "H"))
    parser.add_argument("--views", type=int, default=24, help="views of a batch")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each stage")
    parser.add_argument(
        "--random", action="store_true", help="random pictures and depth; nothing is rendered"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument(
        "--shard", action="store_true",
        help="with torchrun: spread the weights over the processes (FSDP2)",
    )  # fmt: skip
    _json_argument(parser)


def _training(arguments: argparse.Namespace) -> None:
    """Time training steps and the renderer, in one process or those that `torchrun` started.

    Raises:
        ConfigError: A number, recipe or device that cannot be.
    """
    width, height = arguments.picture
    run = training.TimedRun(
        recipe=arguments.recipe,
        picture=(height, width),
        views=arguments.views,
        steps=arguments.steps,
        stage=arguments.stage,
        is_random=arguments.random,
        values=tuple(arguments.set),
    )
    device = choose_device(arguments.device)
    with joined(device, "shard" if arguments.shard else "replicate") as ranks:
        timing = training.measure(run, ranks)
        if ranks.is_first:
            _print_training(timing)
        if ranks.is_first and arguments.json:
            print(json.dumps(timing.to_dict()))


def _print_training(timing: training.TrainingTiming) -> None:
    spread = f" ({timing.spreading})" if timing.processes > 1 else ""
    print(
        f"{timing.recipe}, {timing.width}x{timing.height}, {timing.processes} process(es)"
        f"{spread}, {timing.accumulation} batch(es) of {timing.views_per_step} views a step, "
        f"{timing.dtype}, {timing.device}, {timing.threads} threads"
    )
    if not timing.forcing:
        print(
            "Segmentation Forcing is left out: there is no teacher; name one with "
            "--set objective.teacher=streets (or a folder with SAM2's weights)"
        )
    for name, stage in timing.stages.items():
        gpu = "" if stage.peak_gpu_gb is None else f", {stage.peak_gpu_gb:.2f} GB on the GPU"
        print(
            f"{name:16}{stage.views_per_s:9.1f} views/s, {stage.step_s:.3f} s a step, "
            f"{100 * stage.data_share:.1f} % of it drawing batches; "
            f"{stage.trained / 1e6:.1f} of {stage.parameters / 1e6:.1f} M parameters learn; "
            f"peak memory {stage.peak_resident_gb:.2f} GB{gpu}"
        )
    if timing.rendered_views_per_s is None:
        print("random pictures and depth; no street was rendered")
        return
    print(
        f"{'rendering':16}{timing.rendered_views_per_s:9.1f} views/s in one process; "
        f"{timing.renderers_needed:.1f} processes keep up where each view is used once"
    )


def _tracking_arguments(parser: argparse.ArgumentParser) -> None:
    default = tracking.Workload()
    parser.add_argument("--objects", type=int, default=default.objects)
    parser.add_argument("--views", type=int, default=default.views, help="beside the observed one")
    parser.add_argument(
        "--size", type=int, default=default.size, help="of the square picture [px]"
    )
    parser.add_argument(
        "--library-objects", type=int, metavar="N",
        help="let transformers track only so many; its time for all is then extrapolated",
    )  # fmt: skip
    parser.add_argument("--repeats", type=int, default=1, help="runs; medians are reported")
    _json_argument(parser)


def _tracking(arguments: argparse.Namespace) -> None:
    """Time tracking by SAM2 beside the library's loop.

    Raises:
        ConfigError: A number that cannot be, or transformers is not installed.
        ParityError: The masks differ.
    """
    names = ("objects", "views", "size", "library_objects", "repeats")
    work = tracking.Workload(**{name: getattr(arguments, name) for name in names})
    timing = tracking.measure(work, _tracked)
    print(
        f"\n{timing.objects} objects into {timing.views} views, {timing.size} px, SAM2.1's sizes "
        f"with random weights, CPU, {timing.threads} threads"
    )
    print(
        f"ours          {timing.ours_s:8.1f} s ({timing.ours_cpu_s:.1f} s of the processor), "
        f"peak memory {timing.peak_ours_gb:.2f} GB"
    )
    how = f"extrapolated from {timing.library_objects}" if timing.is_extrapolated else "measured"
    print(
        f"transformers  {timing.library_all_s:8.1f} s ({how}), peak memory "
        f"{timing.peak_library_gb:.2f} GB"
    )
    print(
        f"{timing.ratio:.2f} times as fast ({timing.cpu_ratio:.2f} in time of the processor); "
        f"{100 * timing.equal_pixels:.4f} % of the pixels are "
        f"the same, logits (RMS {timing.rms_logit:.1f}) differ by up to "
        f"{timing.largest_difference:.1e}"
    )
    if arguments.json:
        print(json.dumps(timing.to_dict()))


def _tracked(name: str, done: int, total: int) -> None:
    print(f"\r{name}: {done} of {total} done  ", end="", file=sys.stderr, flush=True)


SUB_VERBS = {
    "golden": SubVerb(
        "compare every stage with golden numbers of the released code", _golden_arguments, _golden
    ),
    "model": SubVerb(
        "time a reconstruction with random weights, stage by stage", _model_arguments, _model
    ),
    "voxels": SubVerb("time voxelisation and pooling", _voxels_arguments, _voxels),
    "streets": SubVerb("time the rendering of synthetic streets", _streets_arguments, _streets),
    "training": SubVerb(
        "time training steps, their memory and the rendering of streets",
        _training_arguments,
        _training,
    ),
    "tracking": SubVerb(
        "time tracking by SAM2 beside the loop of transformers", _tracking_arguments, _tracking
    ),
    "precision": SubVerb(
        "compare bfloat16 with float32 on held-back streets", _precision_arguments, _precision
    ),
}
"""What can be measured, by name."""

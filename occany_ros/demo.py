# SPDX-License-Identifier: Apache-2.0
"""`dev/run demo [FOLDER]`: the launch file, a replay and a receiver as processes of their own.

Pictures or a recording in; voxels.png, result.mcap and summary.json out. The last line printed is
one JSON object.
"""

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage

from occany_core import VoxelGrid as CoreGrid
from occany_core import VoxelGridSpec
from occany_core.errors import OccAnyError
from occany_core.grid_codec import GridCells
from occany_core.picture import save_scene_picture
from occany_core.synthetic.recording import read_truth
from occany_ros.bags import read_messages
from occany_ros.grid_messages import cells_from_message
from occany_ros.image_messages import compressed_to_rgb
from occany_ros.msg import VoxelGrid
from occany_ros.picture_folders import PictureRecording, in_rig_order
from occany_ros.share import share_folder
from occany_ros.sources import DEMO, open_recording
from occany_ros.truth import Overlap

DEMO_GRIDS = 12
DEMO_LEAST_GRIDS = 10
FOLDER_GRIDS = 3
STOP_TIMEOUT_S = 25.0
PICTURE_WIDTH = 640


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What to start."""

    launch_file: str
    arguments: tuple[str, ...]
    grids: int
    least_grids: int
    truth: Path | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the recorded result shows."""

    iou: float | None
    compared_grids: int
    cells: GridCells | None
    pictures: dict[str, np.ndarray]


def plan_for(place: str, rig: str, period_s: float, calibration: str) -> Plan:
    """Look at the input and choose the launch file.

    Raises:
        InputError: The input cannot be used; nothing was started or written.
    """
    recording = open_recording(
        place, period_s, "surround" if rig == "surround" else "auto", calibration
    )
    is_demo = place == DEMO
    arguments = [f"input:={place if is_demo else Path(place).resolve()}", "loop:=true"]
    arguments += ["use_sim_time:=true", f"period:={period_s}"]
    if calibration:
        arguments.append(f"calibration:={Path(calibration).resolve()}")
    if not isinstance(recording, PictureRecording):
        truth = share_folder() / "recordings" / "surround_truth.npz"
        return Plan(
            launch_file="surround.launch.py",
            # Stamps repeat, so that every grid has its truth.
            arguments=(*arguments, "loop_stamps:=back"),
            grids=DEMO_GRIDS,
            least_grids=DEMO_LEAST_GRIDS if is_demo else 1,
            truth=truth if is_demo and truth.exists() else None,
        )
    if len(recording.cameras) > 1:
        cameras = ", ".join(recording.cameras)
        launch_file = "surround.launch.py"
        arguments += [f"cameras:=[{cameras}]", "rig:=surround"]
    elif rig == "monocular" or recording.picture_count == 1:
        launch_file = "monocular.launch.py"
    else:
        launch_file = "sequence.launch.py"
    wanted = max(FOLDER_GRIDS, min(DEMO_GRIDS, recording.picture_count))
    return Plan(
        launch_file=launch_file,
        arguments=tuple(arguments),
        grids=wanted,
        least_grids=1,
        truth=None,
    )


def launch_command() -> list[str]:
    """Return the launcher of this machine, as `dev/run` found it."""
    if "OCCANY_LAUNCH" in os.environ:
        return shlex.split(os.environ["OCCANY_LAUNCH"])
    if shutil.which("ros2"):
        return ["ros2", "launch", "occany_ros"]
    return [sys.executable, str(share_folder() / "dev" / "minilaunch.py")]


@contextmanager
def launched(plan: Plan, log: Path) -> Iterator[subprocess.Popen]:
    """Run the launch file; end all its processes however the block ends."""
    command = [*launch_command(), plan.launch_file, *plan.arguments]
    print(f"$ {shlex.join(command)}   (log: {log})", flush=True)
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield process
        finally:
            stop(process)


def stop(process: subprocess.Popen) -> None:
    """End a launcher as Ctrl-C would, more firmly if it does not listen."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)  # to the launcher alone; it tells its processes
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def receive(plan: Plan, out: Path, timeout_s: float, launcher: subprocess.Popen) -> dict:
    """Run the receiver until it is done or the launcher died; return its figures."""
    figures = out / "figures.json"
    command = [sys.executable, "-m", "occany_ros.receive", "--images"]
    command += ["--grids", str(plan.grids), "--timeout", str(timeout_s)]
    command += ["--mcap", str(out / "result.mcap"), "--json", str(figures)]
    receiver = subprocess.Popen(command, start_new_session=True)
    try:
        while receiver.poll() is None:
            try:
                receiver.wait(0.5)
            except subprocess.TimeoutExpired:
                if launcher.poll() is not None:
                    print("the launch ended before the demo did", flush=True)
                    break
    finally:
        if receiver.poll() is None:
            receiver.send_signal(signal.SIGINT)
            receiver.wait()
    return json.loads(figures.read_text()) if figures.exists() else {"grids": 0}


def outcome_of(result: Path, truth_path: Path | None) -> Outcome:
    """Read the recorded result: overlap with the truth, the last grid, its pictures."""
    truth = read_truth(truth_path) if truth_path else None
    overlap = Overlap()
    cells = None
    newest: dict[str, bytes] = {}
    shown: dict[str, bytes] = {}
    for topic, data in read_messages(result):
        if topic.endswith("/image/compressed"):
            newest[topic] = data
        elif topic.endswith("/output/voxel_grid"):
            message = deserialize_message(data, VoxelGrid)
            cells = cells_from_message(message)
            shown = dict(newest)
            if truth is not None:
                stamp = message.header.stamp
                stamp_ns = stamp.sec * 1_000_000_000 + stamp.nanosec
                overlap.add(truth, stamp_ns, cells.occupied)
    pictures = {
        topic.split("/")[-3]: compressed_to_rgb(
            deserialize_message(data, CompressedImage), topic, PICTURE_WIDTH
        )
        for topic, data in shown.items()
    }
    return Outcome(overlap.iou, overlap.grids, cells, in_rig_order(pictures))


def save_picture(outcome: Outcome, path: Path, title: str) -> None:
    """Draw the input pictures beside the last grid."""
    cells = outcome.cells
    completed = cells.completed
    grid = CoreGrid(
        spec=VoxelGridSpec(
            origin=np.asarray(cells.pose.position),
            resolution=cells.resolution,
            shape=cells.probability.shape,
        ),
        probability=cells.probability,
        completed=np.zeros_like(cells.occupied) if completed is None else completed,
        labels=cells.labels,
    )
    save_scene_picture(path, list(outcome.pictures.values()), grid, title)


def run(place: str, plan: Plan, out: Path, timeout_s: float) -> dict:
    """Run everything and return the summary."""
    out.mkdir(parents=True, exist_ok=True)
    for old in ("voxels.png", "result.mcap", "summary.json", "figures.json"):
        (out / old).unlink(missing_ok=True)
    log = out / "launch.log"
    with launched(plan, log) as launcher:
        figures = receive(plan, out, timeout_s, launcher)
    (out / "figures.json").unlink(missing_ok=True)
    summary = {"input": place, "launch_file": plan.launch_file, **figures}
    summary["iou_vs_truth"] = None
    if figures["grids"]:
        outcome = outcome_of(out / "result.mcap", plan.truth)
        summary["iou_vs_truth"] = None if outcome.iou is None else round(outcome.iou, 4)
        summary["grids_with_truth"] = outcome.compared_grids
        title = Path(place).name
        if outcome.iou is not None:
            title += f": IoU {outcome.iou:.3f} over {outcome.compared_grids} grids"
        save_picture(outcome, out / "voxels.png", title)
    else:
        print(f"no grid came; the end of {log}:", flush=True)
        print("".join(log.read_text().splitlines(keepends=True)[-25:]), flush=True)
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    return summary


def main(args: list[str] | None = None) -> int:
    """Run the demo; 0 when enough grids came, 1 otherwise."""
    parser = argparse.ArgumentParser(
        prog="dev/run demo",
        description="Camera pictures to voxels over real ROS 2 topics.",
        epilog="example: dev/run demo ~/pictures --rig sequence",
    )
    parser.add_argument(
        "input",
        nargs="?",
        default=DEMO,
        help="a picture, a folder of pictures or of one subfolder per camera, or a bag; "
        "default: the bundled recording",
    )
    parser.add_argument(
        "--rig",
        choices=("auto", "surround", "sequence", "monocular"),
        default="auto",
        help="how loose pictures are meant; surround: six cameras at one moment",
    )
    parser.add_argument(
        "--calibration",
        metavar="FILE",
        default="",
        help="JSON with K and rig_from_cam per camera (docs/conventions.md)",
    )
    parser.add_argument("--period", type=float, default=0.5, help="seconds between pictures")
    parser.add_argument("--grids", type=int, help="end after this many grids")
    parser.add_argument("--timeout", type=float, default=240.0, help="give up after this long [s]")
    parser.add_argument(
        "--out", type=Path, default=Path("out/demo"), help="folder for the results"
    )
    options = parser.parse_args(args)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C, cleaning up
    try:
        plan = plan_for(options.input, options.rig, options.period, options.calibration)
        if options.grids:
            least = min(plan.least_grids, options.grids)
            plan = replace(plan, grids=options.grids, least_grids=least)
        summary = run(options.input, plan, options.out, options.timeout)
    except OccAnyError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: interrupted; everything it started has ended", file=sys.stderr)
        return 130
    for name in ("voxels.png", "result.mcap", "summary.json"):
        if (options.out / name).exists():
            print(f"wrote {options.out / name}")
    print(json.dumps(summary), flush=True)
    return 0 if summary["grids"] >= plan.least_grids else 1


if __name__ == "__main__":
    raise SystemExit(main())

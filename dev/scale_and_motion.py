#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What weights know of metres and motion, on held-back streets; see docs/scale_and_calibration.md.

    dev/run exec python dev/scale_and_motion.py --limit 20

Each rung of the ladder against the truth, and how far the odometry is off after two seconds.
"""

import argparse
import sys
from dataclasses import replace

import numpy as np

from occany_core import Stream, load_model
from occany_core.config import from_flat
from occany_core.evaluation.synthocc import view_sets
from occany_core.observation import encode
from occany_core.pipeline import reconstruct
from occany_core.synthetic.synthocc import OccupancyScene, scenes

SETTINGS = {"novel_views.steps": 0, "window.view_sets": 5, "scale.use": "auto"}


def sets_with_odometry(truth: OccupancyScene) -> list:
    """View sets that know where the vehicle truly was."""
    poses = {(view.camera, view.stamp): view.world_from_rig for view in truth.views}
    return [
        [replace(v, odom_from_rig=poses[v.camera, v.stamp].astype(np.float64)) for v in one]
        for one in view_sets(truth)
    ]


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", default="default")
    parser.add_argument("--limit", type=int, default=20, help="streets of each setting")
    options = parser.parse_args()
    model, config = load_model(options.model), from_flat(SETTINGS)
    sys.stdout.write(f"weights {model.name}, {model.sha256[:12]}\n")
    spreads: dict[str, list[float]] = {}
    errors, driven, seen = [], [], []
    for setting in ("surround", "sequence"):
        for truth in scenes(setting, options.limit):
            sets = sets_with_odometry(truth)
            found = reconstruct(model, [encode(model, one, config) for one in sets], config).scale
            for rung in found.rungs:
                spreads.setdefault(rung.source, []).append(rung.spread)
            if setting == "surround":
                continue
            stream = Stream(model, config)
            for one in sets:
                stream.add(one)
            first, *_, last = (view.world_from_rig for view in truth.views)
            drive = np.linalg.inv(first) @ last
            errors.append(np.linalg.norm(drive[:3, 3] - stream.odom_from_rig[:3, 3].numpy()))
            driven.append(np.linalg.norm(drive[:3, 3]))
            seen.append(stream.odometry.metres)
    for source, values in spreads.items():
        sys.stdout.write(
            f"{source:12} spread {min(values):.3f} to {max(values):.3f}, {len(values)} windows\n"
        )
    rms = float(np.sqrt(np.mean(np.square(errors))))
    seconds = 2.0
    sys.stdout.write(
        f"odometry     drove {np.mean(driven):.1f} m, saw {np.mean(seen):.1f} m, off by "
        f"{rms:.1f} m after {seconds:.0f} s (root mean square): {rms / seconds:.1f} m/s\n"
    )


if __name__ == "__main__":
    main()

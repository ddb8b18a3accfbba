# SPDX-License-Identifier: Apache-2.0
"""Pictures of one moving camera -> voxels, points and poses in a folder.

python examples/predict_images.py recordings/sequence out/example
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from occany_core import OccAnyConfig, View, load_model, predict
from occany_core.results import save_scene


def main(args: list[str] | None = None) -> None:
    """Predict, print a little, write everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", type=Path, help="folder of JPEG pictures")
    parser.add_argument("output", type=Path, help="folder for the result")
    parser.add_argument("--model", default="default")
    options = parser.parse_args(args)

    paths = sorted(options.pictures.glob("*.jpg"))
    # One view set per moment. A rig would have several views in each set, with camera names, and
    # K and rig_from_cam where they are known.
    view_sets = [[View(np.asarray(Image.open(path).convert("RGB")))] for path in paths]
    config = OccAnyConfig()
    scene = predict(load_model(options.model), view_sets, config)

    print(f"{len(scene.grid.occupied_centres())} occupied cells of {scene.grid.spec.resolution} m")
    print(f"camera moved {scene.cameras.world_from_cam[-1, :3, 3].norm():.1f} m")
    save_scene(options.output, scene, config, title="example", sources=[p.name for p in paths])


if __name__ == "__main__":
    main()

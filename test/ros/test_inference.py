# SPDX-License-Identifier: Apache-2.0
"""The node's inference: weights that see nothing in noise are still good weights."""

from types import SimpleNamespace

import pytest
from small_model import small_network
from street_views import picture, street_config

from occany_core import View
from occany_core.checkpoints import save_model
from occany_core.errors import DegenerateGeometryError
from occany_ros.inference import Inference


def test_warm_up_survives_weights_that_see_no_scene_in_noise(tmp_path):
    network = small_network()
    network.heads.points.prior[:, 3] *= -1  # left and right change places: no focal length fits
    path = tmp_path / "mirrored.safetensors"
    save_model(network, {"name": "mirrored", "licence": "Apache-2.0"}, path)
    inference = Inference(SimpleNamespace(core=street_config(), checkpoint=path), pytest.fail)
    inference.warm_up(("front", "left"))
    with pytest.raises(DegenerateGeometryError):
        inference._stream.add([View(rgb=picture(0))])

# SPDX-License-Identifier: Apache-2.0
"""`~/render_view`: views of the last scene from where no camera was.

They are rendered in the worker's thread, between two cycles, so that the network never runs twice
at once.
"""

import time
from concurrent.futures import CancelledError, Future
from typing import Protocol

import numpy as np
import torch
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from std_msgs.msg import Header

from occany_core.config import OccAnyConfig
from occany_core.errors import InputError, MemoryShortageError
from occany_core.observation import EncodedSet
from occany_core.semantics.labelling import Labeller
from occany_core.view_rendering import RenderedViews, WantedCamera, render_views
from occany_ros.awaiting import answered, ended_within
from occany_ros.camera_outputs import pinhole_message
from occany_ros.image_messages import plane_to_image
from occany_ros.memory_use import give_back_memory, is_out_of_memory
from occany_ros.pose_messages import matrix_from_pose
from occany_ros.services import Finished, Host, last_cycle
from occany_ros.srv import RenderView

MOST_VIEWS = 16
MOST_PIXELS = 20_000_000
"""Of all pictures together: an answer takes nine bytes for each."""
TIME_LIMIT_S = 30.0


class RenderingHost(Host, Protocol):
    """What this service needs from the node."""

    def render(
        self, cycle: Finished, base_from_cam: torch.Tensor, wanted: WantedCamera | None
    ) -> "Future[RenderedViews]":
        """Begin to render views of a scene in the worker's thread.

        Raises:
            InputError: The node is not active, or an earlier request still runs.
        """


class RenderService:
    """The service."""

    def __init__(self, node: Node, host: RenderingHost) -> None:
        self._node = node
        self._host = host
        self._group = ReentrantCallbackGroup()
        node.create_service(
            RenderView, "~/render_view", self._render_view, callback_group=self._group
        )

    async def _render_view(
        self, request: RenderView.Request, response: RenderView.Response
    ) -> object:
        async def work() -> str:
            began = time.monotonic()
            cycle = last_cycle(self._host)
            poses = self._base_from_cam(request, cycle)
            running = self._host.render(cycle, poses, wanted_camera(request))
            if not await ended_within(self._node, self._group, running, TIME_LIMIT_S):
                running.cancel()
                raise InputError(
                    f"not finished after {TIME_LIMIT_S:g} s; ask for fewer views or a smaller "
                    "window (window.view_sets)"
                )
            try:
                fill(response, running.result(), cycle)
            except CancelledError as error:
                raise InputError("the node was deactivated before it came to this") from error
            return f"{len(poses)} views after {time.monotonic() - began:.1f} s"

        return await answered(response, work())

    def _base_from_cam(self, request: RenderView.Request, cycle: Finished) -> torch.Tensor:
        """Return the wanted poses (R, 4, 4) in the base frame at the scene's stamp."""
        if not 1 <= len(request.poses) <= MOST_VIEWS:
            raise InputError(f"{len(request.poses)} poses are given; give 1 to {MOST_VIEWS}")
        poses = np.stack([matrix_from_pose(pose) for pose in request.poses])
        base_frame = cycle.settings.base_frame
        if request.frame_id not in ("", base_frame):
            stamp_ns = cycle.result.grid_stamp_ns
            poses = self._host.transforms.lookup(base_frame, request.frame_id, stamp_ns) @ poses
        return torch.from_numpy(poses).float()


def render_within_memory(
    labeller: Labeller,
    sets: list[EncodedSet],
    config: OccAnyConfig,
    base_from_cam: torch.Tensor,
    wanted: WantedCamera | None,
) -> RenderedViews:
    """Do what `render_views` does, and say it in words where memory runs out.

    Raises:
        InputError, DegenerateGeometryError: As `render_views`.
        MemoryShortageError: For so many views.
    """
    try:
        return render_views(labeller.model, sets, config, base_from_cam, wanted, labeller)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    give_back_memory()
    raise MemoryShortageError(
        f"out of memory on {labeller.model.device} for {len(base_from_cam)} views; ask for fewer"
    )


def wanted_camera(request: RenderView.Request) -> WantedCamera | None:
    """Read the wanted intrinsics and size; None where the request leaves them out.

    Raises:
        InputError: One of them is given without the others.
    """
    K = np.asarray(request.k, np.float64).reshape(3, 3)
    given = [bool(np.any(K)), request.width > 0, request.height > 0]
    if not any(given):
        return None
    if not all(given):
        raise InputError("k, width and height belong together; give all of them or none")
    pixels = len(request.poses) * request.width * request.height
    if pixels > MOST_PIXELS:
        raise InputError(
            f"{len(request.poses)} pictures of {request.width} x {request.height} px are wanted; "
            f"all together may have {MOST_PIXELS // 1_000_000} megapixels"
        )
    return WantedCamera(torch.from_numpy(K).float(), request.height, request.width)


def fill(response: RenderView.Response, rendered: RenderedViews, cycle: Finished) -> None:
    """Write what was rendered into the answer."""
    header = Header(frame_id=cycle.settings.base_frame)
    header.stamp.sec, header.stamp.nanosec = divmod(cycle.result.grid_stamp_ns, 10**9)
    camera = rendered.camera
    size = (camera.height, camera.width)
    response.header = header
    response.camera_info = pinhole_message(camera.K.double().numpy(), size, header)
    response.depth = [plane_to_image(one.numpy(), header) for one in rendered.depth]
    response.confidence = [plane_to_image(one.numpy(), header) for one in rendered.confidence]
    if rendered.labels is not None:
        response.mask = [plane_to_image(one.numpy(), header) for one in rendered.labels]

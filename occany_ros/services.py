# SPDX-License-Identifier: Apache-2.0
"""The node's services. Each answers within a bound and says in words why it did nothing.

Callbacks run in the executor's thread. What takes time (files) runs in a thread of its own while
the callback awaits it, so that images are received meanwhile.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from rclpy.callback_groups import CallbackGroup, ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from occany_core import VoxelGrid as CoreGrid
from occany_core.datasets.class_tables import SemanticClass
from occany_core.errors import InputError
from occany_ros import scene_files
from occany_ros.awaiting import answered, ended_within
from occany_ros.cloud_messages import points_to_cloud, voxel_points
from occany_ros.grid_boxes import cut_box
from occany_ros.grid_messages import grid_message
from occany_ros.inference import Result
from occany_ros.label_colours import hexadecimal
from occany_ros.msg import VoxelGrid
from occany_ros.node_settings import NodeSettings
from occany_ros.srv import GetVoxelGrid, Load, Save, SetCameraEnabled, SetLabels
from occany_ros.transforms import Transforms

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Finished:
    """A cycle that was published, with the settings it was made with."""

    result: Result
    settings: NodeSettings
    epoch: int
    """Of its view set; another one means that its history has ended."""


class Host(Protocol):
    """What the services need from the node."""

    def reset_history(self) -> None:
        """Begin anew: window, memory, odometry and path."""

    @property
    def settings(self) -> NodeSettings | None:
        """In force; None before the first configuration."""

    @property
    def finished(self) -> Finished | None:
        """The last cycle, or None."""

    @property
    def label_version(self) -> int:
        """Of `~/output/label_info`."""

    @property
    def known_classes(self) -> tuple[SemanticClass, ...]:
        """What the weights in use can name; none where the settings leave labels out."""

    @property
    def transforms(self) -> Transforms | None:
        """Where transforms come from; None while unconfigured."""


def last_cycle(host: Host) -> Finished:
    """Return the last cycle.

    Raises:
        InputError: There is none.
    """
    if host.finished is None:
        raise InputError(
            "there is no grid yet; see ~/status and /diagnostics for why nothing comes out"
        )
    return host.finished


class FileThread:
    """One slow call at a time, awaited by a service callback for a limited time."""

    def __init__(self, node: Node, group: CallbackGroup) -> None:
        self._node = node
        self._group = group
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="files")
        self._running = None

    async def run(self, call: Callable[[], Answer], limit_s: float) -> Answer:
        """Return what the call returns.

        Raises:
            InputError: Another call still runs, or this one takes longer than the limit. It is not
                interrupted then.
            OccAnyError: As the call.
        """
        if self._running is not None and not self._running.done():
            raise InputError("an earlier save or load still runs; try again when it has ended")
        running = self._running = self._pool.submit(call)
        if not await ended_within(self._node, self._group, running, limit_s):
            raise InputError(
                f"not finished after {limit_s:g} s (files.time_limit) and still running; the "
                "disk may be slow"
            )
        return running.result()

    def close(self) -> None:
        """Let the running call finish in the background."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class Services:
    """What the node offers; the table is in docs/ros_interface.md."""

    def __init__(self, node: Node, host: Host) -> None:
        self._node = node
        self._host = host
        # The node's own group would wait, images and all, for a callback that awaits something.
        group = ReentrantCallbackGroup()
        self._files = FileThread(node, group)
        self._loaded_grid = self._loaded_points = None
        for kind, name, callback in (
            (Trigger, "reset", self._reset),
            (Save, "save", self._save),
            (Load, "load", self._load),
            (GetVoxelGrid, "get_voxel_grid", self._get_voxel_grid),
            (SetCameraEnabled, "set_camera_enabled", self._set_camera_enabled),
            (SetLabels, "set_labels", self._set_labels),
        ):
            node.create_service(kind, f"~/{name}", callback, callback_group=group)

    def close(self) -> None:
        """End the thread."""
        self._files.close()

    def _configured(self) -> NodeSettings:
        if self._host.settings is None:
            name = self._node.get_fully_qualified_name()
            raise InputError(
                f"the node is not configured; run `ros2 lifecycle set {name} configure`"
            )
        return self._host.settings

    # --- one method per service ------------------------------------------------------------------
    async def _reset(self, request: Trigger.Request, response: Trigger.Response) -> object:
        async def work() -> str:
            self._configured()
            self._host.reset_history()
            return "window, memory, odometry and path start anew with the next images"

        return await answered(response, work())

    async def _save(self, request: Save.Request, response: Save.Response) -> object:
        async def work() -> str:
            last = last_cycle(self._host)
            files = self._configured().files
            name = request.name or scene_files.name_of_stamp(last.result.grid_stamp_ns)
            folder = await self._files.run(
                lambda: scene_files.save(
                    Path(files.directory),
                    name,
                    last.result.scene,
                    last.settings.core,
                    files.least_free_megabytes,
                ),
                files.time_limit,
            )
            response.path = str(folder)
            return f"saved to {folder}"

        return await answered(response, work())

    async def _load(self, request: Load.Request, response: Load.Response) -> object:
        async def work() -> str:
            settings = self._configured()
            files = settings.files
            grid = await self._files.run(
                lambda: scene_files.load(
                    Path(files.directory), request.name, files.most_megabytes
                ),
                files.time_limit,
            )
            self._show(grid, settings)
            return f"{request.name} is shown on {self._loaded_grid.topic_name} and beside it"

        return await answered(response, work())

    def _show(self, grid: CoreGrid, settings: NodeSettings) -> None:
        """Publish a saved grid on topics of its own; planners never take it for a live one."""
        stamp = self._node.get_clock().now().to_msg()
        header = Header(stamp=stamp, frame_id=settings.base_frame)
        message = grid_message(grid, header)
        if self._loaded_grid is None:
            latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
            self._loaded_grid, self._loaded_points = (
                self._node.create_publisher(kind, f"~/output/loaded/{name}", latched)
                for kind, name in ((VoxelGrid, "voxel_grid"), (PointCloud2, "voxel_points"))
            )
        self._loaded_grid.publish(message)
        points = voxel_points(grid, settings.publish.max_voxel_points)
        self._loaded_points.publish(points_to_cloud(points, header))

    async def _get_voxel_grid(
        self, request: GetVoxelGrid.Request, response: GetVoxelGrid.Response
    ) -> object:
        async def work() -> str:
            last = last_cycle(self._host)
            base_frame = last.settings.base_frame
            frame = request.frame_id or base_frame
            frame_from_base = np.eye(4)
            if frame != base_frame:
                stamp_ns = last.result.grid_stamp_ns
                frame_from_base = self._host.transforms.lookup(frame, base_frame, stamp_ns)
            lower, upper = (
                np.array([corner.x, corner.y, corner.z])
                for corner in (request.lower, request.upper)
            )
            part = cut_box(last.result.scene.grid, np.linalg.inv(frame_from_base), lower, upper)
            header = Header(frame_id=frame)
            header.stamp.sec, header.stamp.nanosec = divmod(last.result.grid_stamp_ns, 10**9)
            response.grid = grid_message(part, header, frame_from_base)
            return ""

        return await answered(response, work())

    def _set(self, values: dict[str, object]) -> None:
        """Set live parameters together; what is wrong with them is the service's answer."""
        parameters = [Parameter(name, value=value) for name, value in values.items()]
        result = self._node.set_parameters_atomically(parameters)
        if not result.successful:
            raise InputError(result.reason)

    async def _set_camera_enabled(
        self, request: SetCameraEnabled.Request, response: SetCameraEnabled.Response
    ) -> object:
        async def work() -> str:
            cameras = [camera.name for camera in self._configured().cameras]
            if request.name not in cameras:
                raise InputError(
                    f"there is no camera {request.name[:80]!r}; the cameras are {cameras}"
                )
            self._set({f"camera.{request.name}.enabled": request.enabled})
            return f"camera {request.name} is {'enabled' if request.enabled else 'disabled'}"

        return await answered(response, work())

    async def _set_labels(
        self, request: SetLabels.Request, response: SetLabels.Response
    ) -> object:
        async def work() -> str:
            self._configured()
            if not self._host.known_classes:
                raise InputError(
                    "no classes are named: labels.use is off, or the weights know none; set "
                    "labels.use to true, model.checkpoint to other weights, or labels.pipeline to "
                    "one that finds things"
                )
            colours = [hexadecimal((one.r, one.g, one.b)) for one in request.colours]
            self._set({"labels.classes": list(request.names), "labels.colours": colours})
            response.version = self._host.label_version
            return f"labelled are: {', '.join(request.names) or 'all classes'}"

        return await answered(response, work())

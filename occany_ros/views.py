# SPDX-License-Identifier: Apache-2.0
"""A set of image messages -> `View`s of the core: pictures decoded, calibration attached.

Intrinsics come from CameraInfo, scaled to the picture as decoded; extrinsics from parameters or
TF; what to ignore from the camera's mask. A picture that cannot be decoded costs its camera's
place in the set, not the set.
"""

import numpy as np
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from occany_core import View
from occany_core.errors import InputError
from occany_ros.ego_masks import ignored_pixels
from occany_ros.image_messages import (
    calibration_fault,
    compressed_to_rgb,
    image_to_rgb,
    intrinsics,
)
from occany_ros.node_settings import NodeSettings
from occany_ros.odometry_input import OdometryInput
from occany_ros.pose_messages import matrix_from_values
from occany_ros.subscriptions import CameraInput
from occany_ros.synchroniser import Image, ViewSet
from occany_ros.transforms import Transforms


class ViewMaker:
    """Turns view sets into views; runs in the worker's thread."""

    def __init__(
        self,
        inputs: dict[str, CameraInput],
        transforms: Transforms,
        least_width: int,
        odometry: OdometryInput | None = None,
    ) -> None:
        """Keep where calibration comes from.

        Args:
            inputs: By camera name; their reception is told what is wrong.
            transforms: For extrinsics.
            least_width: Pictures need not be decoded larger than this [px].
            odometry: Of the vehicle.
        """
        self._inputs = inputs
        self._transforms = transforms
        self._least_width = least_width
        self._odometry = odometry
        self.missing_extrinsics = ""
        """Why extrinsics could not be used in the last set; empty when they could."""

    def make(self, view_set: ViewSet, settings: NodeSettings) -> list[View]:
        """Return one view per camera whose picture can be used.

        Raises:
            InputError: Too few pictures can be decoded, or calibration is required and missing.
        """
        pictures = {}
        for image in view_set.images:
            rgb = self._decode(image)
            if rgb is not None:
                pictures[image.camera] = (image, rgb)
        if not settings.sync.accepts(pictures) or not pictures:
            errors = [self._inputs[image.camera].reception.error for image in view_set.images]
            raise InputError("; ".join(error for error in errors if error))
        extrinsics = self._extrinsics([image for image, _ in pictures.values()], settings)
        return [
            View(
                rgb=rgb,
                camera=camera,
                stamp=image.stamp_ns * 1e-9,
                K=self._intrinsics(camera, rgb, settings),
                rig_from_cam=extrinsics.get(camera),
                odom_from_rig=self._odometry.at(image.stamp_ns) if self._odometry else None,
                ignored=self._ignored(camera, rgb),
            )
            for camera, (image, rgb) in pictures.items()
        ]

    def _decode(self, image: Image) -> np.ndarray | None:
        camera = self._inputs[image.camera]
        try:
            if isinstance(image.payload, CompressedImage):
                rgb = compressed_to_rgb(image.payload, camera.topic, self._least_width)
            else:
                rgb = image_to_rgb(image.payload, camera.topic, self._least_width)
        except InputError as error:
            camera.reception.error = str(error)
            return None
        camera.reception.error = ""
        return rgb

    def _intrinsics(
        self, camera: str, rgb: np.ndarray, settings: NodeSettings
    ) -> np.ndarray | None:
        use = settings.core.calibration.use
        reception = self._inputs[camera].reception
        reception.warning = ""
        if use == "off":
            return None
        info = self._inputs[camera].camera_info
        K = None
        fault = "" if info is None else calibration_fault(info)
        if fault:
            reception.warning = f"camera {camera}: its calibration is not used: {fault}"
        elif info is not None:
            K = intrinsics(info, rgb.shape[0], rgb.shape[1])
        if K is None and use == "required":
            topic = self._inputs[camera].topic.rsplit("/", 1)[0] + "/camera_info"
            raise InputError(
                f"camera {camera}: calibration.use is 'required' and there is no valid {topic}; "
                "publish it, or set calibration.use to auto"
            )
        return K

    def _ignored(self, camera: str, rgb: np.ndarray) -> np.ndarray | None:
        mask, reception = self._inputs[camera].mask, self._inputs[camera].reception
        message = mask.message
        if message is None:
            return None
        try:
            return ignored_pixels(message, mask.topic, *rgb.shape[:2])
        except InputError as error:
            warning = f"camera {camera}: {error}; until then all pixels count"
            reception.warning = "; ".join(filter(None, (reception.warning, warning)))
            return None

    def _extrinsics(self, images: list[Image], settings: NodeSettings) -> dict[str, np.ndarray]:
        """Return `rig_from_cam` of all cameras, or of none when one is missing."""
        self.missing_extrinsics = ""
        if settings.core.calibration.use == "off":
            return {}
        try:
            return {
                image.camera: self._rig_from_cam(image, settings.base_frame) for image in images
            }
        except InputError as error:
            if settings.core.calibration.use == "required":
                raise
            self.missing_extrinsics = str(error)
            return {}

    def header_of(self, image: Image) -> Header:
        """Return stamp and optical frame of an image, for what is made of it."""
        header = image.payload.header
        set_frame = self._inputs[image.camera].settings.frame_id
        return Header(stamp=header.stamp, frame_id=set_frame or header.frame_id.lstrip("/"))

    def _rig_from_cam(self, image: Image, base_frame: str) -> np.ndarray:
        camera = self._inputs[image.camera].settings
        if camera.rig_from_cam:
            return matrix_from_values(list(camera.rig_from_cam))
        frame = self.header_of(image).frame_id
        if not frame:
            raise InputError(
                f"camera {camera.name}: its images name no frame; "
                f"set camera.{camera.name}.frame_id"
            )
        return self._transforms.lookup(base_frame, frame, image.stamp_ns)

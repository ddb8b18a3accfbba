# SPDX-License-Identifier: Apache-2.0
"""The lifecycle node `occany`: camera topics in, voxel grids out. Wiring only.

Two threads: the executor's receives images and answers services; the worker's decodes, infers and
publishes. Image messages -> synchroniser -> worker -> inference -> outputs.
"""

import time
import traceback
from concurrent.futures import Future

from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from torch import Tensor

from occany_core.datasets.class_tables import SemanticClass
from occany_core.errors import InputError, OccAnyError
from occany_core.view_rendering import RenderedViews, WantedCamera
from occany_ros.budget import Budget
from occany_ros.camera_outputs import CameraOutputs
from occany_ros.diagnostics import (
    budget_finding,
    camera_finding,
    clock_finding,
    looking_finding,
)
from occany_ros.inference import Inference, Job
from occany_ros.label_info import LabelInfoOutput
from occany_ros.msg import OccAnyStatus
from occany_ros.node_settings import NodeSettings
from occany_ros.odometry_input import OdometryInput
from occany_ros.parameters import NodeParameters
from occany_ros.process import run_until_signal
from occany_ros.publishers import Outputs
from occany_ros.render_service import RenderService, render_within_memory
from occany_ros.reports import (
    Reports,
    bands_finding,
    camera_states,
    motion_findings,
    status_findings,
    synchroniser_finding,
)
from occany_ros.services import Finished, Services
from occany_ros.status import ModelFacts, Status
from occany_ros.subscriptions import CameraInput, ImageMessage
from occany_ros.synchroniser import Synchroniser, ViewSet
from occany_ros.tf_ownership import check_frame_is_free
from occany_ros.transforms import Transforms, make_transforms
from occany_ros.transition_requests import refuse_impossible
from occany_ros.views import ViewMaker
from occany_ros.worker import STOP_TIMEOUT_S, Worker

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
POLL_PERIOD_S = 0.05
REPORT_PERIOD_S = 1.0
LONGEST_LATENCY_MS = 60_000.0
"""A larger difference between now and a stamp means that they are of different clocks."""


class OccAnyNode(LifecycleNode):
    """See the module; parameters and topics are listed in docs and `ros2 param describe`."""

    def __init__(self, node_name: str = "occany", **options: object) -> None:
        super().__init__(node_name, **options)
        self.fatal = ""
        """Traceback of a bug that ended the worker, or empty."""
        self._is_configured = False
        self._node_parameters = NodeParameters(self, lambda: self._is_configured)
        self._node_parameters.on_change(self._on_live_change)
        self._status = Status()
        self._settings: NodeSettings | None = None
        self._sync: Synchroniser | None = None
        self._inference: Inference | None = None
        self._inputs: dict[str, CameraInput] = {}
        self._odometry: OdometryInput | None = None
        self._outputs: Outputs | None = None
        self._camera_outputs: CameraOutputs | None = None
        self._label_info = LabelInfoOutput(self)
        self._transforms: Transforms | None = None
        self._views: ViewMaker | None = None
        self._worker: Worker[Job] | None = None
        self._last_set_s: float | None = None
        self._finished: Finished | None = None
        self._offered = Services(self, self)
        self._rendering = RenderService(self, self)
        refuse_impossible(self)
        self._status_publisher = self.create_publisher(OccAnyStatus, "~/status", 1)
        self._reports = Reports(self)
        # Steady, so that a paused recording with simulated time does not stop them.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._poll_timer = self.create_timer(POLL_PERIOD_S, self._poll, clock=steady)
        self._report_timer = self.create_timer(REPORT_PERIOD_S, self._report, clock=steady)

    @property
    def autostart(self) -> bool:
        """Whether the node configures and activates itself."""
        return bool(self.get_parameter("autostart").value)

    @property
    def settings(self) -> NodeSettings | None:
        """In force; None while unconfigured."""
        return self._settings if self._is_configured else None

    @property
    def finished(self) -> Finished | None:
        """The last cycle whose grid went out; None before it and after a reset."""
        last, sync = self._finished, self._sync
        return last if last and sync and last.epoch == sync.epoch else None

    @property
    def label_version(self) -> int:
        """Of `~/output/label_info`."""
        return self._label_info.version

    @property
    def known_classes(self) -> tuple[SemanticClass, ...]:
        """What is labelled; none where the settings leave labels out, or nothing names any."""
        return self._classes_for(self._settings) if self._inference else ()

    @property
    def transforms(self) -> Transforms | None:
        """Where transforms come from; None while unconfigured."""
        return self._transforms

    # --- life ----------------------------------------------------------------------------------
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Validate all parameters, load and warm the model, open the topics."""
        try:
            self._configure()
        except OccAnyError as error:
            self._fail_to_configure(str(error))
            return FAILURE
        except Exception as error:  # rclpy would swallow it without a word
            if self.context.ok():  # else a signal came, and the middleware refuses everything
                self.get_logger().error(traceback.format_exc())
            self._fail_to_configure(f"a bug: {type(error).__name__}: {error}")
            return FAILURE
        return SUCCESS

    def _fail_to_configure(self, why: str) -> None:
        self._refuse(f"configure failed: {why}")
        self._release()

    def _refuse(self, sentence: str) -> None:
        self._status.last_error = sentence
        if self.context.ok():
            self.get_logger().error(sentence)
            self._reports.was_logged(sentence)

    def _configure(self) -> None:
        settings = self._settings = self._node_parameters.read()
        began = time.monotonic()
        self._inference = Inference(settings, self._on_error)
        model, cameras = self._inference.model, settings.sync.cameras
        self._inference.warm_up(cameras)
        licence = model.card.get("licence", "not stated")
        self._status.model = ModelFacts(model.name, model.sha256, licence, str(model.device))
        self._transforms = make_transforms(self)
        for camera in settings.cameras:
            self._inputs[camera.name] = CameraInput(self, camera, self._on_image)
        self._outputs = Outputs(self, self._transforms, settings.bands.bands)
        self._camera_outputs = CameraOutputs(self, cameras)
        self._show_labels(settings)
        self._odometry = OdometryInput(self, settings.base_frame)
        width = self._inference.picture_width
        self._views = ViewMaker(self._inputs, self._transforms, width, self._odometry)
        self._is_configured = True
        self._status.last_error = ""
        self.get_logger().info(
            f"model {model.name} ({licence}) ready on {model.device} after "
            f"{time.monotonic() - began:.1f} s; cameras: {', '.join(cameras)}"
        )

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begin to process images; fails when another node broadcasts our frame."""
        settings = self._settings
        try:
            if settings.publish.tf:
                check_frame_is_free(self, settings.base_frame, settings.odom_frame)
        except OccAnyError as error:
            self._refuse(f"activate failed: {error}")
            return FAILURE
        self._status.most_spread = settings.core.scale.max_spread
        self._sync = Synchroniser(self._settings.sync)
        self._last_set_s = None
        self._finished = None
        self._outputs.reset()
        self._inference.begin()
        self._status.start()
        self._worker = Worker(self._run_cycle, self._on_error, self._on_fatal)
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Finish the running cycle and stop; the model stays."""
        self._stop_worker()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything; parameters may change again."""
        self._release()
        return SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and free everything."""
        self._release()
        return SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Return to unconfigured after a failed transition."""
        self._release()
        return SUCCESS

    def start(self) -> None:
        """Configure and activate, as a lifecycle manager would."""
        if self.trigger_configure() == SUCCESS:
            self.trigger_activate()

    def close(self) -> None:
        """Stop and free everything, whatever the state; the node can be destroyed then."""
        self._release()
        self._offered.close()

    def reset_history(self) -> None:
        """Begin anew: window, memory, odometry and path. A running cycle is not published."""
        if self._worker is not None:
            self._sync.restart()
            self._worker.discard()

    def render(
        self, cycle: Finished, base_from_cam: Tensor, wanted: WantedCamera | None
    ) -> "Future[RenderedViews]":
        """Begin to render views of a scene in the worker's thread.

        Raises:
            InputError: The node is not active, or an earlier request still runs.
        """
        if self._worker is None:
            name = self.get_fully_qualified_name()
            raise InputError(f"the node is not active; run `ros2 lifecycle set {name} activate`")
        sets, config = cycle.result.sets, cycle.settings.core
        labeller = self._inference.labeller
        return self._worker.call(
            lambda: render_within_memory(labeller, sets, config, base_from_cam, wanted)
        )

    def _stop_worker(self) -> None:
        self._status.stop()
        worker, self._worker = self._worker, None
        if worker is not None and not worker.stop(STOP_TIMEOUT_S):
            self.get_logger().warning(f"the running cycle takes longer than {STOP_TIMEOUT_S} s")

    def _release(self) -> None:
        self._stop_worker()
        self._is_configured = False
        self._finished = None
        outputs = self._outputs, self._camera_outputs
        parts = (*self._inputs.values(), self._odometry, *outputs, self._transforms)
        for part in (*parts, self._inference):
            if part is not None:
                part.close()
        self._inputs = {}
        self._outputs = self._transforms = self._views = self._inference = self._sync = None
        self._odometry = self._camera_outputs = None

    # --- receiving: the executor's thread ------------------------------------------------------
    def _on_image(self, camera: str, message: ImageMessage) -> None:
        if self._worker is None or camera in self._sync.rules.disabled_cameras:
            return
        stamp_ns = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
        jumps = self._sync.counters.clock_jumps
        view_set = self._sync.add(camera, stamp_ns, message, time.monotonic_ns())
        if self._sync.counters.clock_jumps > jumps:
            self._worker.discard()
            self.get_logger().warning(
                f"camera {camera}: the clock jumped to {stamp_ns * 1e-9:.3f} s; "
                "window, memory and path start anew"
            )
        self._submit(view_set)

    def _poll(self) -> None:
        if self._worker is not None:
            self._submit(self._sync.poll(time.monotonic_ns()))

    def _submit(self, view_set: ViewSet | None) -> None:
        if view_set is not None:
            self._last_set_s = time.monotonic()
            if not self._inference.budget.take():
                return
            self._worker.submit(Job(view_set, self._settings))

    def _on_live_change(self, settings: NodeSettings) -> None:
        self._inference.labeller.check(settings.core.labels)
        self._show_labels(settings)
        self._settings = settings
        self._status.most_spread = settings.core.scale.max_spread
        if self._sync is not None:
            self._sync.set_rules(settings.sync)

    def _show_labels(self, settings: NodeSettings) -> None:
        source = self._inference.labeller.source(settings.core.labels)
        self._label_info.show(self._classes_for(settings), source)

    def _classes_for(self, settings: NodeSettings) -> tuple[SemanticClass, ...]:
        classes = self._inference.labeller.classes(settings.core.labels)
        return settings.colours.applied(classes)

    # --- one cycle: the worker's thread --------------------------------------------------------
    def _run_cycle(self, job: Job) -> None:
        sync = self._sync
        result = self._inference.run(job, self._views)
        if not self.context.ok() or sync.epoch != job.view_set.epoch:
            return  # of a history that has ended
        if result.is_new_history:
            self._outputs.reset()
        images = job.view_set.images
        newest_ns = max(image.stamp_ns for image in images)
        began = time.perf_counter()
        upright_from_base = self._odometry.at(result.grid_stamp_ns)
        # Before the grid is out: who has it may call a service at once.
        self._finished = Finished(result, job.settings, job.view_set.epoch)
        stamp_ns = job.view_set.stamp_ns
        self._outputs.publish(result, stamp_ns, job.settings, upright_from_base)
        self._camera_outputs.publish(result.scene, result.headers)
        result.stages_ms["publish"] = 1e3 * (time.perf_counter() - began)
        waited_ms = (time.monotonic_ns() - max(image.arrived_ns for image in images)) * 1e-6
        self._inference.budget.note(result.work, result.cost(), job.settings.budget)
        latency_ms = (self.get_clock().now().nanoseconds - newest_ns) * 1e-6
        if not 0 <= latency_ms <= LONGEST_LATENCY_MS:
            latency_ms = waited_ms
        self._status.note_grid(result, latency_ms)
        self._publish_status()

    def _on_error(self, error: OccAnyError) -> None:
        self._status.note_error(error)
        self._reports.was_logged(str(error))
        self.get_logger().error(str(error), throttle_duration_sec=10.0)

    def _on_fatal(self, traceback_text: str) -> None:
        if not self.context.ok():
            return  # publishing fails while the process ends
        self.fatal = traceback_text
        self.get_logger().fatal(f"a bug ended the inference, the node stops:\n{traceback_text}")
        self.context.try_shutdown()

    # --- reports -------------------------------------------------------------------------------
    def _publish_status(self) -> None:
        sync, worker, settings = self._sync, self._worker, self._settings
        budget = self._inference.budget if self._inference else Budget()
        message = self._status.message(
            stamp=self.get_clock().now().to_msg(),
            frame=settings.base_frame if settings else "",
            skipped=(worker.skipped if worker else 0) + budget.left_out,
            dropped_images=sync.counters.dropped if sync else 0,
            budget=budget.step,
        )
        self._status_publisher.publish(message)

    def _report(self) -> None:
        for camera in self._inputs.values():
            camera.match_reliability()
        if self._status.state != "running":
            self._publish_status()
        now_s = self.get_clock().now().nanoseconds * 1e-9
        findings = [clock_finding(bool(self.get_parameter("use_sim_time").value), now_s)]
        findings += status_findings(
            self._status, self._views.missing_extrinsics if self._views else ""
        )
        if self._odometry is not None:
            drift = self._settings.publish.drift
            findings += motion_findings(self._status, drift, self._odometry.warning)
            findings.append(bands_finding(self._outputs.bands_error))
        if self._worker is not None:
            step, limits = self._inference.budget.step, self._settings.budget
            findings.append(budget_finding(step, limits, self._status.history.cost))
            if self._inference.looking is not None:
                looking = self._inference.looking.state
                findings.append(looking_finding(looking, self._settings.core))
            states = camera_states(self._inputs, self._sync, time.monotonic_ns())
            findings += map(camera_finding, states)
            since_s = None if self._last_set_s is None else time.monotonic() - self._last_set_s
            findings.append(synchroniser_finding(self._inputs, self._sync, states, since_s))
        self._reports.publish(findings)


def main(args: list[str] | None = None) -> int:
    """Run the node until a signal; returns 0 after a signal, 1 after a bug or wrong arguments."""
    return run_until_signal(OccAnyNode, args)


if __name__ == "__main__":
    raise SystemExit(main())

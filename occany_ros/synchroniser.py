# SPDX-License-Identifier: Apache-2.0
"""Images of several cameras -> view sets whose stamps agree. Plain Python, no ROS.

Capture times (`stamp_ns`) come from the messages and may jump when a recording loops. Waiting
limits use `now_ns`, a clock of the caller that never jumps (`time.monotonic_ns`). Both are integer
nanoseconds.

Every image offered ends in exactly one place: in a set, in a queue, or in one of the `dropped_*`
counters. A queue holds at most `QUEUE_DEPTH` images, so one call costs time linear in the number
of cameras.
"""

from collections import deque
from dataclasses import dataclass, field, replace

from occany_ros.sync_rules import SyncRules

QUEUE_DEPTH = 4
"""Images kept per camera: enough to match streams that arrive a few periods apart."""

JUMP_NS = 1_000_000_000
"""A stamp this much before its camera's last one is a jump of the clock, less is a late image."""


@dataclass(frozen=True, slots=True)
class Image:
    """One image as offered; `payload` is whatever the caller wants back."""

    camera: str
    stamp_ns: int
    payload: object
    arrived_ns: int


@dataclass(frozen=True, slots=True)
class ViewSet:
    """Images taken together, in the order of `SyncRules.cameras`."""

    images: tuple[Image, ...]
    epoch: int
    """Counts the jumps of the clock: sets of different epochs do not belong to one history."""

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras that are in the set."""
        return tuple(image.camera for image in self.images)

    @property
    def stamp_ns(self) -> int:
        """Capture time of the set: that of its first image, the reference view."""
        return self.images[0].stamp_ns

    @property
    def skew_ns(self) -> int:
        """Difference between the oldest and the newest capture time."""
        stamps = [image.stamp_ns for image in self.images]
        return max(stamps) - min(stamps)


@dataclass(frozen=True, slots=True)
class Counters:
    """What happened to the images since the start."""

    received: int = 0
    used: int = 0
    sets: int = 0
    partial_sets: int = 0
    dropped_overflow: int = 0
    """Left a full queue."""
    dropped_unmatched: int = 0
    """Older than an image of the same camera that went into a set, or never found partners."""
    dropped_out_of_order: int = 0
    """Not newer than the camera's last image."""
    dropped_jump: int = 0
    """Thrown away when the clock jumped, or arrived late from before the jump."""
    clock_jumps: int = 0

    @property
    def dropped(self) -> int:
        """All images that reached no set and never will."""
        return (
            self.dropped_overflow
            + self.dropped_unmatched
            + self.dropped_out_of_order
            + self.dropped_jump
        )


@dataclass(slots=True)
class _Stream:
    """State of one camera."""

    queue: deque[Image] = field(default_factory=deque)
    last_stamp_ns: int | None = None
    last_arrival_ns: int | None = None
    seen_in_epoch: bool = False
    used_stamp_ns: int | None = None
    steps_back: int = 0
    """Images in a row older than the newest one: a recording shorter than `JUMP_NS` loops."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A possible set: the cameras that have an image within the tolerance after `oldest_ns`."""

    oldest_ns: int
    cameras: frozenset[str]


class Synchroniser:
    """Collects images and gives out view sets. Not thread-safe: call it from one thread."""

    def __init__(self, rules: SyncRules) -> None:
        self._rules = rules
        self._streams = {camera: _Stream() for camera in rules.cameras}
        self._counters = Counters()
        self._epoch = 0
        self._first_arrival_ns: int | None = None
        self._newest_ns: int | None = None
        self._newest_before_jump_ns: int | None = None

    @property
    def counters(self) -> Counters:
        """What happened to the images since the start."""
        return self._counters

    @property
    def epoch(self) -> int:
        """Counts the jumps of the clock and the calls of `restart`."""
        return self._epoch

    @property
    def rules(self) -> SyncRules:
        """The rules in force."""
        return self._rules

    def set_rules(self, rules: SyncRules) -> None:
        """Change everything but the cameras.

        Raises:
            ValueError: The cameras differ.
        """
        if rules.cameras != self._rules.cameras:
            raise ValueError(f"cameras are fixed: {self._rules.cameras}, not {rules.cameras}")
        self._rules = rules
        for camera in rules.disabled_cameras:
            stream = self._streams[camera]
            self._count(dropped_unmatched=len(self._fresh(stream)))
            stream.queue.clear()
            stream.last_stamp_ns = None  # however long it stays away, its return is no jump

    def restart(self) -> None:
        """Begin a new history as after a jump of the clock, because somebody asks for it."""
        self._count(dropped_unmatched=self.queued())
        self._forget()

    def queued(self) -> int:
        """Count the images that wait for partners."""
        if self._rules.policy == "latest":
            return sum(len(self._fresh(stream)) for stream in self._streams.values())
        return sum(len(stream.queue) for stream in self._streams.values())

    def silence_ns(self, camera: str, now_ns: int) -> int | None:
        """Return for how long a camera sent nothing; None when no camera sent anything yet."""
        since = self._streams[camera].last_arrival_ns
        since = self._first_arrival_ns if since is None else since
        return None if since is None else now_ns - since

    def is_silent(self, camera: str, now_ns: int) -> bool:
        """Tell whether a camera passed its timeout and is left out."""
        silence = self.silence_ns(camera, now_ns)
        return silence is not None and silence > self._rules.camera_timeout_ns

    def add(self, camera: str, stamp_ns: int, payload: object, now_ns: int) -> ViewSet | None:
        """Offer an image; return a set when it completes one.

        Raises:
            KeyError: The camera is not in the rules.
        """
        stream = self._streams[camera]
        self._count(received=1)
        if self._first_arrival_ns is None:
            self._first_arrival_ns = now_ns
        if not self._admit(stream, stamp_ns):
            stream.last_arrival_ns = now_ns
            return None
        lapped = bool(self._fresh(stream))
        stream.last_arrival_ns = now_ns
        stream.last_stamp_ns = stamp_ns
        stream.seen_in_epoch = True
        self._newest_ns = stamp_ns if self._newest_ns is None else max(self._newest_ns, stamp_ns)
        self._enqueue(stream, Image(camera, stamp_ns, payload, now_ns))
        if self._rules.policy == "latest":
            return self._take_latest(now_ns, lapped=lapped)
        return self._take_complete(now_ns) or self._take_overdue(now_ns)

    def poll(self, now_ns: int) -> ViewSet | None:
        """Return an incomplete set whose wait is over. Call it a few times per `max_wait_ns`."""
        if self._rules.policy == "latest":
            return self._take_latest(now_ns, lapped=False)
        return self._take_complete(now_ns) or self._take_overdue(now_ns)

    # --- admission -----------------------------------------------------------------------------
    def _admit(self, stream: _Stream, stamp_ns: int) -> bool:
        """Decide about an image before it is queued; notices jumps of the clock."""
        if self._is_left_over(stream, stamp_ns):
            self._count(dropped_jump=1)
            return False
        if stream.last_stamp_ns is None:
            return True
        step = stamp_ns - stream.last_stamp_ns
        gap = self._rules.max_gap_ns
        stream.steps_back = stream.steps_back + 1 if step < 0 else 0
        persistent = stream.steps_back > QUEUE_DEPTH
        if step <= -JUMP_NS or persistent or (gap and step > gap):
            self._jump(stamp_ns)
            return True
        if step <= 0:
            self._count(dropped_out_of_order=1)
            return False
        return True

    def _is_left_over(self, stream: _Stream, stamp_ns: int) -> bool:
        """Recognise an image from before the last jump back that arrives after it."""
        if stream.seen_in_epoch or self._newest_before_jump_ns is None or self._newest_ns is None:
            return False
        ahead = stamp_ns - self._newest_ns
        return ahead >= JUMP_NS and stamp_ns <= self._newest_before_jump_ns

    def _jump(self, stamp_ns: int) -> None:
        """Forget all stamps, once for all cameras."""
        backwards = self._newest_ns is not None and stamp_ns < self._newest_ns
        self._newest_before_jump_ns = self._newest_ns if backwards else None
        self._count(dropped_jump=self.queued(), clock_jumps=1)
        self._forget()

    def _forget(self) -> None:
        self._epoch += 1
        self._newest_ns = None
        for stream in self._streams.values():
            stream.queue.clear()
            stream.last_stamp_ns = None
            stream.used_stamp_ns = None
            stream.seen_in_epoch = False
            stream.steps_back = 0

    def _enqueue(self, stream: _Stream, image: Image) -> None:
        if self._rules.policy == "latest":
            self._count(dropped_unmatched=len(self._fresh(stream)))
            stream.queue.clear()
        elif len(stream.queue) == QUEUE_DEPTH:
            stream.queue.popleft()
            self._count(dropped_overflow=1)
        stream.queue.append(image)

    # --- approximate and exact -----------------------------------------------------------------
    def _awaited(self, now_ns: int) -> set[str]:
        return {
            camera
            for camera in self._streams
            if camera not in self._rules.disabled_cameras and not self.is_silent(camera, now_ns)
        }

    def _candidates(self) -> list[_Candidate]:
        """List, for each queued image as the oldest, the cameras within the tolerance after it."""
        tolerance = self._rules.tolerance_ns()
        queued = sorted(
            (image for stream in self._streams.values() for image in stream.queue),
            key=lambda image: image.stamp_ns,
        )
        candidates = []
        inside: dict[str, int] = {}
        end = 0
        for oldest in queued:
            while end < len(queued) and queued[end].stamp_ns - oldest.stamp_ns <= tolerance:
                inside[queued[end].camera] = inside.get(queued[end].camera, 0) + 1
                end += 1
            candidates.append(_Candidate(oldest.stamp_ns, frozenset(inside)))
            inside[oldest.camera] -= 1
            if not inside[oldest.camera]:
                del inside[oldest.camera]
        return candidates

    def _take_complete(self, now_ns: int) -> ViewSet | None:
        """Take the newest set that holds every camera that is awaited."""
        awaited = self._awaited(now_ns)
        if any(not self._streams[camera].queue for camera in awaited):
            return None
        complete = [
            candidate
            for candidate in self._candidates()
            if awaited <= candidate.cameras and self._rules.accepts(candidate.cameras)
        ]
        if not complete:
            return None
        return self._take(max(complete, key=lambda c: (c.oldest_ns, len(c.cameras))))

    def _take_overdue(self, now_ns: int) -> ViewSet | None:
        """Take the fullest acceptable set around images that waited enough; drop the hopeless."""
        limit = now_ns - self._rules.max_wait_ns
        overdue = [
            image
            for stream in self._streams.values()
            for image in stream.queue
            if image.arrived_ns <= limit
        ]
        if not overdue:
            return None
        newest_overdue = max(image.stamp_ns for image in overdue)
        acceptable = [
            candidate
            for candidate in self._candidates()
            if candidate.oldest_ns <= newest_overdue and self._rules.accepts(candidate.cameras)
        ]
        if acceptable:
            return self._take(max(acceptable, key=lambda c: (len(c.cameras), c.oldest_ns)))
        for image in overdue:
            self._streams[image.camera].queue.remove(image)
        self._count(dropped_unmatched=len(overdue))
        return None

    def _take(self, candidate: _Candidate) -> ViewSet:
        """Remove a set from the queues together with everything older than it.

        Per camera the image nearest to the oldest one is taken, which gives the least spread.
        """
        window: dict[str, Image] = {}
        for camera, stream in self._streams.items():
            while stream.queue and stream.queue[0].stamp_ns < candidate.oldest_ns:
                stream.queue.popleft()
                self._count(dropped_unmatched=1)
            if camera in candidate.cameras:
                window[camera] = stream.queue.popleft()
        return self._give_out(window, used=len(window))

    # --- latest --------------------------------------------------------------------------------
    def _fresh(self, stream: _Stream) -> list[Image]:
        """Return the queued images that were in no set; `latest` keeps used ones for reuse."""
        used = stream.used_stamp_ns
        return [image for image in stream.queue if used is None or image.stamp_ns > used]

    def _take_latest(self, now_ns: int, lapped: bool) -> ViewSet | None:
        """Take each camera's newest image once all are new, one came twice, or a wait is over."""
        fresh = {camera for camera, stream in self._streams.items() if self._fresh(stream)}
        if not fresh:
            return None
        awaited = self._awaited(now_ns)
        held = {camera for camera, stream in self._streams.items() if stream.queue}
        waited_ns = max(now_ns - self._streams[camera].queue[-1].arrived_ns for camera in fresh)
        due = (
            awaited <= fresh
            or (lapped and awaited <= held)
            or waited_ns >= self._rules.max_wait_ns
        )
        newest_ns = max(self._streams[camera].queue[-1].stamp_ns for camera in held)
        window = {
            camera: self._streams[camera].queue[-1]
            for camera in held
            if newest_ns - self._streams[camera].queue[-1].stamp_ns <= self._rules.max_age_ns
        }
        first_use = fresh & window.keys()
        if not (due and first_use and self._rules.accepts(window)):
            return None
        for camera in first_use:
            self._streams[camera].used_stamp_ns = window[camera].stamp_ns
        return self._give_out(window, used=len(first_use))

    # --- bookkeeping ---------------------------------------------------------------------------
    def _give_out(self, window: dict[str, Image], used: int) -> ViewSet:
        partial = len(window) < len(self._streams)
        self._count(used=used, sets=1, partial_sets=int(partial))
        return ViewSet(
            tuple(window[camera] for camera in self._rules.cameras if camera in window),
            self._epoch,
        )

    def _count(self, **changes: int) -> None:
        sums = {name: getattr(self._counters, name) + more for name, more in changes.items()}
        self._counters = replace(self._counters, **sums)

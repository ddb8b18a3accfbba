# SPDX-License-Identifier: Apache-2.0
"""Where metres come from and how far the path holds -> findings in words."""

import math

from occany_core.odometry import Drift, Odometry
from occany_core.scale import Scale
from occany_ros.diagnostics import OK, WARN, Finding

SOURCES = {
    "user": "scale.factor",
    "odometry": "the vehicle's odometry",
    "extrinsics": "the distances between the cameras",
    "camera_info": "the network, whose focal length camera_info confirms",
    "model": "the network alone",
}


def scale_jump(before: Scale | None, now: Scale, limit: float) -> str:
    """Say how metres changed from one cycle to the next, where by more than a share; or empty."""
    if before is None or abs(now.factor / before.factor - 1) <= limit:
        return ""
    return (
        f"metres changed by {100 * (now.factor / before.factor - 1):+.0f} % from one cycle to the "
        f"next (factor {before.factor:.3f} from {before.source}, now {now.factor:.3f} from "
        f"{now.source}), and scale.max_spread allows {100 * limit:.0f} %; set scale.factor, or "
        "scale.use to model"
    )


def scale_finding(scale: Scale, jump: str, odometry_warning: str) -> Finding:
    """Judge where metres come from.

    Args:
        scale: Of the last cycle.
        jump: What `scale_jump` said lately, or empty.
        odometry_warning: Why ~/input/odometry cannot be used, or empty.
    """
    values = {"source": scale.source, "factor": f"{scale.factor:.4f}"}
    if not math.isnan(scale.spread):
        values["spread"] = f"{scale.spread:.3f}"
    for rung in scale.rungs:
        values[rung.source] = (
            f"factor {rung.factor:.3f}, spread {rung.spread:.3f}, {rung.pairs} pairs"
        )
    doubts = [text for text in (odometry_warning, jump, *scale.doubts) if text]
    if doubts:
        return Finding("scale", WARN, "; ".join(doubts), values)
    spread = "" if math.isnan(scale.spread) else f", spread {100 * scale.spread:.0f} %"
    text = f"metres from {SOURCES[scale.source]}: factor {scale.factor:.3f}{spread}"
    return Finding("scale", OK, text, values)


def odometry_finding(odometry: Odometry, drift: Drift, is_new_segment: bool) -> Finding:
    """Judge the path.

    Args:
        odometry: Of the last cycle.
        drift: Of the odometry.
        is_new_segment: Whether the segment began a short while ago.
    """
    deviation = odometry.position_deviation(drift)
    values = {
        "segment": str(odometry.segment),
        "links": str(odometry.links),
        "metres": f"{odometry.metres:.2f}",
        "deviation_m": f"{deviation:.2f}",
    }
    if is_new_segment and odometry.segment > 1:
        text = (
            f"odometry: segment {odometry.segment} begins, because {odometry.break_reason}; its "
            f"poses are not linked to those before and may be off by {deviation:.0f} m"
        )
        return Finding("odometry", WARN, text, values)
    text = (
        f"segment {odometry.segment}, {odometry.links} links over {odometry.metres:.1f} m, "
        f"deviation {deviation:.2f} m"
    )
    return Finding("odometry", OK, text, values)

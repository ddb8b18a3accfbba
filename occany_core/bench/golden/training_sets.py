# SPDX-License-Identifier: Apache-2.0
"""Golden files of the training terms: losses and gradients (golden_training/README)."""

from collections.abc import Callable
from pathlib import Path

import torch

from occany_core.bench.golden.checklist import Checklist, Stage
from occany_core.bench.golden.training_cases import LOSS, Case
from occany_core.errors import InputError
from occany_core.poses import encoding_from_pose
from occany_core.training.objectives import depth, forcing, pointmaps, poses, rays
from occany_core.training.objectives import self_distillation as distilled
from occany_core.training.objectives.distillation import encoder_distillation

SCALES = {"avg_dis": "mean", "median_dis": "median"}
FEATURE_DISTANCES = {"L1Loss": "absolute", "MSELoss": "squared"}
POINT_PREFIX = "Regr3D_multiview_"
PLUS_LEVELS = ("high_res", "mid_res", "low_res", "pre_neck")
"""What the manifest calls the four levels of the plus model."""
CONSENSUS_TOLERANCE = 5e-3
"""Part of a scale that random subsets may cost."""
SEED = 0


def check_pointmaps(path: Path) -> list[Stage]:
    """Compare global and local regression and the pose term with `mv_*`."""
    case = Case.of(path)
    case.only("norm_mode", "alpha", "pose_weight", "gt_scale", "confidence")
    reference_from_cam, points, valid, is_metric = (
        case.checklist.given(name) for name in ("gt_c2w", "gt_pts3d", "valid", "is_metric")
    )
    names = ("pts3d", "pts3d_local", "conf", "pose")
    ours = dict(zip(names, case.inputs(*(f"pred_{name}" for name in names)), strict=True))
    truth = pointmaps.PointmapTruth(points, reference_from_cam, valid, is_metric)
    predicted = pointmaps.PointmapPrediction(ours["pts3d"], ours["pts3d_local"], ours["conf"])
    found = pointmaps.pointmap_loss(predicted, truth, _point_settings(case))
    pose = poses.pose_loss(ours["pose"], reference_from_cam)
    total = found.total + case.settings["pose_weight"] * pose
    case.total(total)
    case.gradients(total, {f"grad_{name}": tensor for name, tensor in ours.items()})
    errors = poses.encoding_errors(ours["pose"], reference_from_cam)
    for name, value in {
        "conf_loss_g": found.reference,
        "conf_loss_l": found.local,
        POINT_PREFIX + "pts3d": found.reference_error,
        POINT_PREFIX + "pts3d_local": found.local_error,
        POINT_PREFIX + "pose": pose,
        # The set gives the head's poses as the registered ones too.
        POINT_PREFIX + "rot_error_deg": errors.rotation_deg,
        POINT_PREFIX + "trans_error": errors.translation,
        POINT_PREFIX + "rot_error_deg_pose_regis": errors.rotation_deg,
        POINT_PREFIX + "trans_error_pose_regis": errors.translation,
    }.items():
        case.scalar(name, value)
    return case.report()


def _point_settings(case: Case) -> pointmaps.PointmapSettings:
    mode = case.settings["norm_mode"]
    scale = SCALES.get(mode.removeprefix("?"))
    if scale is None:
        raise InputError(f"{case.checklist.file}: unknown norm_mode {mode!r}")
    return pointmaps.PointmapSettings(
        alpha=case.settings["alpha"] if case.settings["confidence"] else 0.0,
        scale="none" if case.settings["gt_scale"] else scale,
        metric_keeps_truth_scale=mode.startswith("?"),
    )


def check_forcing(path: Path) -> list[Stage]:
    """Compare Segmentation Forcing with `distill_mv_*` and `distill_plus_*`."""
    case = Case.of(path)
    case.only("criterion", "use_conf")
    is_plus = path.stem.startswith("distill_plus")
    weighting = "normalised" if is_plus else "plain"
    settings = forcing.ForcingSettings(
        distance=FEATURE_DISTANCES[case.settings["criterion"]],
        weighting=weighting if case.settings["use_conf"] else "none",
    )
    arrays = case.checklist.arrays
    levels = range(sum(name.startswith("student_") for name in arrays))
    student = case.inputs(*(f"student_{level}" for level in levels))
    # Teacher and confidence ask for gradients too, and must not get any.
    teacher = case.inputs(*(f"teacher_{level}" for level in levels))
    (confidence,) = case.inputs("conf")
    found = forcing.segmentation_forcing(student, teacher, confidence, settings)
    case.total(found.total)
    constant = {"confidence": confidence} | {
        f"teacher {level}": teacher[level] for level in levels
    }
    by_name = {f"grad_student_{level}": student[level] for level in levels}
    case.gradients(found.total, by_name, constant)
    for level, value in enumerate(found.levels):
        case.scalar(f"feat_{level}", value)
        if is_plus and level < len(PLUS_LEVELS):
            case.scalar(f"distill_loss_{PLUS_LEVELS[level]}", value)
            case.scalar(f"distill_loss_{PLUS_LEVELS[level]}_weighted", value)
    for name in ("total", "distill_loss", "distill_loss_unweighted"):
        case.scalar(name, found.total)
    return case.report()


def check_encoder(path: Path) -> list[Stage]:
    """Compare encoder distillation with `enc_distill`."""
    case = Case.of(path)
    case.only()
    student, teacher = case.inputs("student", "teacher")
    found = encoder_distillation(student, teacher)
    case.total(found)
    case.gradients(found, {"grad_student": student}, {"teacher": teacher})
    return case.report()


def check_plus_pointmaps(path: Path) -> list[Stage]:
    """Compare the pointmap term of the plus model with `plus_pointmap_*`."""
    case = Case.of(path)
    case.only("reduction", "lambda_c", "gt_scale", "loss_type")
    points, confidence = case.inputs("pred", "conf")
    settings = pointmaps.PointmapSettings(
        alpha=case.settings["lambda_c"],
        distance=case.settings["loss_type"].lower(),
        scale="none" if case.settings["gt_scale"] else "mean",
    )
    truth, valid = (case.checklist.given(name) for name in ("gt", "valid"))
    found = pointmaps.reference_pointmap_loss(points, confidence, truth, valid, settings)
    case.total(found)
    case.gradients(found, {"grad_pred": points, "grad_conf": confidence})
    return case.report()


def check_plus_depth(path: Path) -> list[Stage]:
    """Compare the depth term of the plus model with `plus_depth_*`."""
    case = Case.of(path)
    case.only("lambda_c", "alpha", "gt_scale", "detach_confidence")
    predicted, confidence = case.inputs("pred", "conf")
    truth, valid = (case.checklist.given(name) for name in ("gt", "valid"))
    settings = depth.DepthSettings(
        alpha=case.settings["lambda_c"],
        step_weight=case.settings["alpha"],
        is_relative=not case.settings["gt_scale"],
        trains_confidence=not case.settings.get("detach_confidence", False),
    )
    found = depth.depth_loss(predicted, confidence, truth, valid, settings)
    case.total(found)
    case.gradients(found, {"grad_pred": predicted, "grad_conf": confidence})
    return case.report()


def check_plus_rays(path: Path) -> list[Stage]:
    """Compare the ray term and true ray maps of the plus model with `plus_raymap_*`."""
    case = Case.of(path)
    case.only("lambda_c", "gt_scale", "loss_type")
    if not case.settings["gt_scale"]:
        raise InputError(f"{path.name}: rays are compared in metres, gt_scale must be true")
    predicted, confidence = case.inputs("pred", "conf")
    K, reference_from_cam = (case.checklist.given(name) for name in ("gt_K", "gt_c2w"))
    truth = rays.ray_map(K, reference_from_cam, tuple(predicted.shape[2:4]))
    case.checklist.within("gt_raymap", truth)
    settings = rays.RaySettings(
        alpha=case.settings["lambda_c"], distance=case.settings["loss_type"].lower()
    )
    found = rays.ray_loss(predicted, confidence, truth, settings)
    case.total(found.total)
    case.gradients(found.total, {"grad_pred": predicted, "grad_conf": confidence})
    for name, value in {
        "loss_raymap": found.total,
        "loss_ray_dir": found.direction_error,
        "loss_ray_origin": found.origin_error,
    }.items():
        case.scalar(name, value)
    return case.report()


def check_self_distillation(path: Path) -> list[Stage]:
    """Compare scale and loss of self-distillation with `plus_scaleinv_*`.

    Where random subsets decide the scale, ours may differ a little; the loss is then compared for
    the scale of the set.
    """
    case = Case.of(path)
    case.only("ransac")
    (predicted,) = case.inputs("train_depth")
    teacher, truth, valid = (
        case.checklist.given(name) for name in ("teacher_depth", "gt_depth", "valid")
    )
    ours = distilled.scale_to_truth(
        teacher,
        truth,
        valid,
        "consensus" if case.settings["ransac"] else "median",
        torch.Generator().manual_seed(SEED),
    )
    golden = case.checklist.arrays["scale"]
    part = CONSENSUS_TOLERANCE if case.settings["ransac"] else LOSS
    tolerance = part * golden.abs().min().item()
    for name, value in (("scale", ours), ("meta.scale", ours), ("meta.avg_scale", ours.mean())):
        case.checklist.within(name, value, tolerance)
    found = distilled.self_distillation(predicted, teacher, valid, golden)
    case.total(found.total)
    case.gradients(found.total, {"grad_train": predicted})
    case.scalar("loss_scale_inv_depth", found.depth)
    case.scalar("loss_scale_inv_grad", found.steps)
    return case.report()


def check_pose_encoding(path: Path) -> list[Stage]:
    """Compare what the pose head is trained towards with `pose_encoding`."""
    checklist = Checklist.of(path)
    checklist.within("encoding", encoding_from_pose(checklist.given("c2w")))
    return checklist.report()


CHECKS: dict[str, Callable[[Path], list[Stage]]] = {
    "mv_*.safetensors": check_pointmaps,
    "distill_*.safetensors": check_forcing,
    "enc_distill.safetensors": check_encoder,
    "plus_pointmap_*.safetensors": check_plus_pointmaps,
    "plus_depth_*.safetensors": check_plus_depth,
    "plus_raymap_*.safetensors": check_plus_rays,
    "plus_scaleinv_*.safetensors": check_self_distillation,
    "pose_encoding.safetensors": check_pose_encoding,
}

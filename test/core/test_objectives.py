# SPDX-License-Identifier: Apache-2.0
"""Laws of the training terms: zero at the truth, masks, scales, stopped gradients, small cases."""

import math
from dataclasses import replace

import numpy as np
import pytest
import strategies
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from occany_core import rigid
from occany_core.errors import ConfigError, InputError
from occany_core.poses import encoding_from_pose
from occany_core.training.objectives.depth import DepthSettings, depth_loss
from occany_core.training.objectives.distillation import encoder_distillation, feature_matching
from occany_core.training.objectives.forcing import (
    PLUS as PLUS_FORCING,
)
from occany_core.training.objectives.forcing import ForcingSettings, segmentation_forcing
from occany_core.training.objectives.pointmaps import (
    PLUS,
    VALIDATION,
    PointmapPrediction,
    PointmapSettings,
    PointmapTruth,
    local_points,
    pointmap_loss,
    reference_pointmap_loss,
)
from occany_core.training.objectives.poses import encoding_errors, pose_loss
from occany_core.training.objectives.rays import RaySettings, ray_loss, ray_map
from occany_core.training.objectives.regression import item_scale, step_error, with_confidence
from occany_core.training.objectives.self_distillation import scale_to_truth, self_distillation

B, N, H, W = 2, 3, 4, 5


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def normal(rng, *shape):
    return torch.from_numpy(rng.normal(size=shape)).float()


def truth_of(rng):
    poses = strategies.motion(rng, B, N).float()
    poses[:, 0] = torch.eye(4)
    valid = torch.from_numpy(rng.random((B, N, H, W)) < 0.5)
    return PointmapTruth(
        10 * normal(rng, B, N, H, W, 3), poses, valid, torch.ones(B, dtype=torch.bool)
    )


def prediction_of(truth, confidence, offset=0.0):
    ours = (truth.points_reference + offset, local_points(truth) + offset, confidence)
    return PointmapPrediction(*(tensor.detach().clone().requires_grad_() for tensor in ours))


# --- pointmaps -----------------------------------------------------------------------------------


def test_pointmaps_at_the_truth_cost_only_the_confidence(rng):
    truth = truth_of(rng)
    confidence = 1 + normal(rng, B, N, H, W).exp()
    found = pointmap_loss(prediction_of(truth, confidence), truth, PointmapSettings())
    expected = -0.2 * confidence[truth.valid].log().mean()
    assert found.reference.item() == pytest.approx(expected.item(), abs=1e-6)
    assert found.local.item() == pytest.approx(expected.item(), abs=1e-6)
    assert found.reference_error.item() == pytest.approx(0, abs=1e-6)
    plain = pointmap_loss(prediction_of(truth, confidence), truth, VALIDATION)
    assert plain.total.item() == pytest.approx(0, abs=1e-4)


def test_pointmap_loss_of_one_pixel_by_hand():
    # The truth is 5 m away, the prediction 2 m off: relative error 0.4, confidence 3.
    truth = PointmapTruth(
        torch.tensor([3.0, 0.0, 4.0]).view(1, 1, 1, 1, 3),
        torch.eye(4)[None, None],
        torch.ones(1, 1, 1, 1, dtype=torch.bool),
        torch.ones(1, dtype=torch.bool),
    )
    predicted = prediction_of(truth, torch.full((1, 1, 1, 1), 3.0), torch.tensor([0.0, 2.0, 0.0]))
    found = pointmap_loss(predicted, truth, PointmapSettings(alpha=0.2))
    assert found.reference.item() == pytest.approx(3 * 0.4 - 0.2 * math.log(3))
    assert found.reference_error.item() == pytest.approx(0.4)
    metres = pointmap_loss(predicted, truth, VALIDATION)
    assert metres.total.item() == pytest.approx(2 + 2)
    (gradient,) = torch.autograd.grad(found.reference, predicted.confidence)
    assert gradient.item() == pytest.approx(0.4 - 0.2 / 3)


@settings(max_examples=20, deadline=None)
@given(seed=strategies.seeds, factor=st.floats(0.1, 10))
def test_own_scale_makes_the_loss_blind_to_the_size_of_the_prediction(seed, factor):
    rng = np.random.default_rng(seed)
    truth = replace(truth_of(rng), valid=torch.ones(B, N, H, W, dtype=torch.bool))
    predicted = prediction_of(truth, torch.full((B, N, H, W), 2.0), normal(rng, 3))
    larger = replace_points(predicted, factor)
    for own in (
        (truth, PointmapSettings(metric_keeps_truth_scale=False)),
        (replace(truth, is_metric=~truth.is_metric), PointmapSettings(scale="median")),
    ):
        expected = pointmap_loss(predicted, *own).total
        torch.testing.assert_close(pointmap_loss(larger, *own).total, expected)
    metric, doubled = (
        pointmap_loss(replace_points(predicted, k), truth, PointmapSettings()).total.item()
        for k in (1.0, 2.0)
    )
    assert doubled > metric


def replace_points(predicted, factor):
    points = (predicted.points_reference * factor, predicted.points_cam * factor)
    return PointmapPrediction(*points, predicted.confidence)


@settings(max_examples=20, deadline=None)
@given(seed=strategies.seeds, factor=st.floats(0.1, 10))
def test_loss_is_relative_to_the_size_of_the_scene(seed, factor):
    rng = np.random.default_rng(seed)
    truth = truth_of(rng)
    offset = normal(rng, 3)
    scaled = PointmapTruth(
        truth.points_reference * factor,
        rigid.compose(
            truth.reference_from_cam[..., :3, :3], truth.reference_from_cam[..., :3, 3] * factor
        ),
        truth.valid,
        truth.is_metric,
    )
    confidence = torch.full((B, N, H, W), 2.0)
    one = pointmap_loss(prediction_of(truth, confidence, offset), truth, PointmapSettings())
    other = pointmap_loss(
        prediction_of(scaled, confidence, offset * factor), scaled, PointmapSettings()
    )
    torch.testing.assert_close(one.total, other.total, rtol=1e-3, atol=1e-5)


def test_masked_pixels_carry_neither_loss_nor_gradient(rng):
    truth = truth_of(rng)
    confidence = 1 + normal(rng, B, N, H, W).exp()
    for metric in (True, False):
        is_metric = torch.full((B,), metric)
        clean = replace(truth, is_metric=is_metric)
        offset = normal(rng, B, N, H, W, 3)
        expected = pointmap_loss(
            prediction_of(clean, confidence, offset), clean, PointmapSettings()
        )
        broken = replace(
            clean,
            points_reference=truth.points_reference.where(truth.valid[..., None], torch.nan),
        )
        predicted = prediction_of(clean, confidence, offset)
        found = pointmap_loss(predicted, broken, PointmapSettings())
        torch.testing.assert_close(found.total, expected.total)
        found.total.backward()
        for tensor in (predicted.points_reference, predicted.points_cam, predicted.confidence):
            assert tensor.grad.isfinite().all()
            assert (tensor.grad[~truth.valid] == 0).all()
            assert (tensor.grad[truth.valid] != 0).any()


def test_an_empty_item_does_not_touch_the_others(rng):
    truth = truth_of(rng)
    empty = truth.valid.clone()
    empty[1] = False
    alone = PointmapTruth(
        truth.points_reference[:1], truth.reference_from_cam[:1], empty[:1], truth.is_metric[:1]
    )
    both = replace(truth, valid=empty)
    offset, confidence = normal(rng, B, N, H, W, 3), torch.full((B, N, H, W), 2.0)
    for kind in ("mean", "median"):
        rule = PointmapSettings(scale=kind, metric_keeps_truth_scale=False)
        expected = pointmap_loss(prediction_of(alone, confidence[:1], offset[:1]), alone, rule)
        predicted = prediction_of(both, confidence, offset)
        found = pointmap_loss(predicted, both, rule)
        torch.testing.assert_close(found.total, expected.total)
        found.total.backward()
        assert (predicted.points_reference.grad[1] == 0).all()
    nothing = replace(truth, valid=torch.zeros_like(empty))
    predicted = prediction_of(nothing, confidence, offset)
    total = pointmap_loss(predicted, nothing, PointmapSettings()).total
    assert total.item() == 0
    total.backward()
    assert (predicted.points_reference.grad == 0).all()


def test_plus_pointmaps_divide_both_sides_by_the_truth(rng):
    truth = 10 * normal(rng, B, N, H, W, 3)
    valid = torch.ones(B, N, H, W, dtype=torch.bool)
    confidence = torch.full((B, N, H, W), 2.0)
    offset = torch.tensor([1.0, -2.0, 3.0])
    scale = truth.norm(dim=-1).mean(dim=(1, 2, 3))
    found = reference_pointmap_loss(truth + offset, confidence, truth, valid)
    assert found.item() == pytest.approx((2 * 6 / scale - math.log(2)).mean().item(), rel=1e-5)
    euclidean = reference_pointmap_loss(
        truth + offset, confidence, truth, valid, replace(PLUS, distance="l2", alpha=0.0)
    )
    assert euclidean.item() == pytest.approx((math.sqrt(14) / scale).mean().item(), rel=1e-5)


def test_the_best_confidence_is_alpha_over_the_error():
    error, alpha = torch.tensor(0.05), 0.2
    confidence = torch.tensor(4.0, requires_grad=True)
    with_confidence(error, confidence, alpha).backward()
    assert confidence.grad.item() == pytest.approx(0, abs=1e-7)


def test_median_of_an_even_number_is_the_lower_middle_one():
    points = torch.tensor([1.0, 2.0, 5.0, 9.0]).view(1, 4, 1) * torch.tensor([0.0, 0.0, 1.0])
    valid = torch.ones(1, 4, dtype=torch.bool)
    assert item_scale(points, valid, "median").item() == 2
    assert item_scale(points, valid, "mean").item() == pytest.approx(4.25)
    assert item_scale(points, valid, "none").item() == 1


# --- poses ---------------------------------------------------------------------------------------


def test_pose_loss_is_zero_at_the_truth_and_counts_metres(rng):
    truth = strategies.motion(rng, B, N).float()
    encoding = encoding_from_pose(truth)
    assert pose_loss(encoding, truth).item() == pytest.approx(0, abs=1e-6)
    moved = encoding.clone()
    moved[..., 0] += 3
    moved[..., 1] += 4
    assert pose_loss(moved, truth).item() == pytest.approx(5, rel=1e-5)
    errors = encoding_errors(moved, truth)
    assert errors.translation.item() == pytest.approx(5, rel=1e-5)
    assert errors.rotation_deg.item() == pytest.approx(0, abs=0.1)


def test_pose_errors_know_the_angle_whatever_the_length_of_the_quaternion():
    turned = rigid.yaw(torch.tensor([[math.radians(30)]]))
    encoding = encoding_from_pose(turned) * torch.tensor([1.0, 1, 1, 5, 5, 5, 5])
    errors = encoding_errors(encoding, torch.eye(4)[None, None])
    assert errors.rotation_deg.item() == pytest.approx(30, abs=1e-3)


# --- forcing and distillation --------------------------------------------------------------------


def features(rng, sizes, channels=(6, 4)):
    return [normal(rng, B, N, c, *size) for c, size in zip(channels, sizes)]


@pytest.mark.parametrize("distance", ["squared", "absolute"])
@pytest.mark.parametrize("weighting", ["none", "plain", "normalised"])
def test_forcing_teaches_the_student_only(rng, distance, weighting):
    rule = ForcingSettings(distance=distance, weighting=weighting)
    sizes = ((4, 4), (8, 8))
    student, teacher = features(rng, sizes), features(rng, sizes)
    confidence = 1 + normal(rng, B, N, 10, 12).exp()
    for tensor in (*student, *teacher, confidence):
        tensor.requires_grad_()
    segmentation_forcing(student, teacher, confidence, rule).total.backward()
    assert all((level.grad != 0).any() for level in student)
    assert all(tensor.grad is None for tensor in (*teacher, confidence))
    same = segmentation_forcing(teacher, teacher, confidence, rule)
    assert same.total.item() == 0


def test_forcing_by_hand(rng):
    student = [torch.full((1, 1, 4, 2, 2), 3.0)]
    teacher = [torch.full((1, 1, 4, 2, 2), 1.0)]
    confidence = torch.full((1, 1, 6, 6), 5.0)
    confidence[..., :3] = 1.0  # left half
    found = {
        weighting: segmentation_forcing(
            student, teacher, confidence, ForcingSettings(weighting=weighting)
        ).total.item()
        for weighting in ("none", "plain", "normalised")
    }
    assert found == pytest.approx({"none": 4.0, "plain": 4.0 * 3.0, "normalised": 4.0})
    plus = segmentation_forcing(student, teacher, confidence, PLUS_FORCING)
    assert plus.total.item() == pytest.approx(2.0)
    assert plus.levels[0].item() == pytest.approx(2.0)


def test_unsure_places_weigh_less(rng):
    student = [torch.zeros(1, 1, 2, 4, 4)]
    teacher = [torch.zeros(1, 1, 2, 4, 4)]
    teacher[0][..., 2:] = 1.0  # the right half is wrong
    confidence = torch.full((1, 1, 8, 8), 9.0)
    confidence[..., 4:] = 1.0
    for weighting in ("plain", "normalised"):
        rule = ForcingSettings(weighting=weighting)
        unsure = segmentation_forcing(student, teacher, confidence, rule).total
        sure = segmentation_forcing(student, teacher, confidence.flip(-1), rule).total
        assert unsure < sure / 4


def test_a_teacher_of_another_size_is_resized_and_other_levels_are_refused(rng):
    student = features(rng, ((4, 4), (8, 8)))
    constant = [torch.ones(B, N, c, 7, 9) for c in (6, 4)]
    confidence = torch.full((B, N, 8, 8), 2.0)
    found = segmentation_forcing(student, constant, confidence, ForcingSettings())
    same = segmentation_forcing(
        student, [torch.ones_like(level) for level in student], confidence, ForcingSettings()
    )
    torch.testing.assert_close(found.total, same.total)
    with pytest.raises(InputError, match="same levels"):
        segmentation_forcing(student, constant[:1], confidence, ForcingSettings())


@pytest.mark.parametrize("term", [encoder_distillation, feature_matching])
def test_token_terms_stop_at_the_teacher(rng, term):
    student, teacher = normal(rng, B, 7, 8).requires_grad_(), normal(rng, B, 7, 8).requires_grad_()
    term(student, teacher).backward()
    assert teacher.grad is None and (student.grad != 0).all()
    assert term(teacher, teacher).item() == 0
    two = torch.full((1, 3, 4), 2.0)
    expected = 4.0 if term is encoder_distillation else 2.0
    assert term(two, torch.zeros_like(two)).item() == pytest.approx(expected)


# --- plus: depth, rays, self-distillation --------------------------------------------------------


def test_depth_by_hand():
    truth = torch.tensor([[2.0, 4.0], [6.0, torch.nan]]).view(1, 1, 2, 2)
    valid = truth.isfinite()
    depth = torch.tensor([[3.0, 4.0], [8.0, 9.0]]).view(1, 1, 2, 2).requires_grad_()
    confidence = torch.full((1, 1, 2, 2), 2.0, requires_grad=True)
    plain = depth_loss(depth, confidence, truth, valid, DepthSettings())
    assert plain.item() == pytest.approx((1 + 0 + 2) / 3)
    relative = depth_loss(depth, confidence, truth, valid, DepthSettings(is_relative=True))
    assert relative.item() == pytest.approx((1 + 0 + 2) / 3 / 4)
    weighted = depth_loss(depth, confidence, truth, valid, DepthSettings(alpha=0.5))
    assert weighted.item() == pytest.approx(2 * 1 - 0.5 * math.log(2))
    # Errors 1, 0 / 2: one step of 1 along x, one of 1 along y.
    steps = depth_loss(depth, confidence, truth, valid, DepthSettings(step_weight=3.0))
    assert steps.item() == pytest.approx(1 + 3 * (1 + 1))
    steps.backward()
    assert depth.grad.isfinite().all() and depth.grad[0, 0, 1, 1] == 0


def test_depth_confidence_learns_only_where_asked(rng):
    depth, truth = normal(rng, B, N, H, W) + 9, normal(rng, B, N, H, W) + 9
    valid = torch.ones(B, N, H, W, dtype=torch.bool)
    for rule, learns in (
        (DepthSettings(alpha=1.0), True),
        (DepthSettings(alpha=1.0, trains_confidence=False), False),
        (DepthSettings(), False),
    ):
        confidence = torch.full((B, N, H, W), 2.0, requires_grad=True)
        ours = depth.clone().requires_grad_()
        depth_loss(ours, confidence, truth, valid, rule).backward()
        assert (confidence.grad is not None) is learns
        assert (ours.grad != 0).all()


def test_steps_need_both_neighbours():
    difference = torch.tensor([[0.0, 5.0, 7.0]]).view(1, 1, 1, 3)
    valid = torch.tensor([True, False, True]).view(1, 1, 1, 3)
    assert step_error(difference, valid).item() == 0
    assert step_error(difference, torch.ones_like(valid)).item() == pytest.approx((5 + 2) / 2)


def test_ray_map_reaches_the_points_and_the_loss_is_zero_there(rng):
    K = strategies.intrinsics(rng, W, H).float().expand(B, N, 3, 3)
    reference_from_cam = strategies.motion(rng, B, N).float()
    rays = ray_map(K, reference_from_cam, (H, W))
    points = rays[..., 3:] + 7 * rays[..., :3]
    cam = rigid.apply(rigid.invert(reference_from_cam), points.flatten(2, 3))
    torch.testing.assert_close(
        cam[..., 2], torch.full_like(cam[..., 2], 7.0), rtol=1e-4, atol=1e-4
    )
    confidence = torch.full((B, N, H, W), 2.0)
    same = ray_loss(rays, confidence, rays, RaySettings())
    assert same.total.item() == pytest.approx(-math.log(2))
    off = rays + torch.tensor([0.1, 0, 0, 0, 2.0, 0])
    found = ray_loss(off, confidence, rays, RaySettings(alpha=0.0))
    assert found.total.item() == pytest.approx(10 * 0.1 + 2, rel=1e-5)
    assert found.direction_error.item() == pytest.approx(0.1, rel=1e-4)
    assert found.origin_error.item() == pytest.approx(2, rel=1e-5)


def depth_pair(rng, scale, pixels=(20, 20)):
    truth = torch.from_numpy(rng.uniform(2, 40, (1, N, *pixels))).float()
    return truth / scale, truth


@pytest.mark.parametrize("method", ["consensus", "median"])
def test_scale_is_found(rng, method):
    teacher, truth = depth_pair(rng, 1.7)
    valid = torch.ones_like(truth, dtype=torch.bool)
    assert scale_to_truth(teacher, truth, valid, method).item() == pytest.approx(1.7, rel=1e-4)


def test_consensus_outvotes_wrong_pixels_and_the_median_does_not(rng):
    teacher, truth = depth_pair(rng, 2.0)
    # 55 % of all ratios are wrong, and disagree with each other.
    wrong = torch.from_numpy(rng.random(truth.shape) < 0.55)
    teacher = torch.where(
        wrong, teacher / torch.from_numpy(rng.uniform(2, 9, truth.shape)), teacher
    )
    teacher = teacher.float()
    valid = torch.ones_like(truth, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    consensus = scale_to_truth(teacher, truth, valid, "consensus", generator).item()
    median = scale_to_truth(teacher, truth, valid, "median").item()
    assert consensus == pytest.approx(2, rel=0.03)
    assert median > 2.2


def test_scale_with_few_or_no_pixels(rng):
    teacher, truth = depth_pair(rng, 3.0)
    none = torch.zeros_like(truth, dtype=torch.bool)
    assert scale_to_truth(teacher, truth, none).item() == 1
    few = none.clone()
    few[0, 0, 0, :3] = True
    assert scale_to_truth(teacher, truth, few).item() == pytest.approx(3, rel=1e-5)
    tiny = scale_to_truth(teacher * 1e5, truth, ~none)
    assert tiny.item() == pytest.approx(0.01)
    # Depths outside the limits and pixels without LiDAR take no part.
    truth[0, 1] = 60.0
    teacher[0, 2] = 0.001
    assert scale_to_truth(teacher, truth, ~none).item() == pytest.approx(3, rel=1e-4)


def test_self_distillation_stops_at_the_teacher_and_at_the_mask(rng):
    teacher, truth = depth_pair(rng, 2.0)
    valid = torch.from_numpy(rng.random(truth.shape) < 0.6)
    teacher = teacher.requires_grad_()
    scale = scale_to_truth(teacher, truth, valid)
    assert not scale.requires_grad
    depth = (truth + 0.5).requires_grad_()
    found = self_distillation(depth, teacher, valid, scale)
    assert found.depth.item() == pytest.approx(0.5, rel=1e-3)
    assert found.steps.item() == pytest.approx(0, abs=1e-4)
    found.total.backward()
    assert teacher.grad is None
    assert (depth.grad[~valid] == 0).all() and (depth.grad[valid] != 0).any()
    outside = self_distillation(torch.full_like(truth, 0.005), teacher, valid, scale)
    assert outside.total.item() == 0


# --- settings ------------------------------------------------------------------------------------


def test_wrong_settings_are_refused(rng):
    truth = truth_of(rng)
    predicted = prediction_of(truth, torch.full((B, N, H, W), 2.0))
    for wrong in (PointmapSettings(scale="largest"), PointmapSettings(distance="l3")):
        with pytest.raises(ConfigError, match="unknown"):
            pointmap_loss(predicted, truth, wrong)
    for make in (
        lambda: PointmapSettings(alpha=-1),
        lambda: DepthSettings(step_weight=-1),
        lambda: RaySettings(alpha=-1),
    ):
        with pytest.raises(ConfigError, match="negative"):
            make()
    for make in (
        lambda: ForcingSettings(distance="cosine"),
        lambda: ForcingSettings(weighting="most"),
    ):
        with pytest.raises(ConfigError, match="unknown"):
            make()

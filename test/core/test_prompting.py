# SPDX-License-Identifier: Apache-2.0
"""Prompts, the mask decoder and its losses: laws and small cases, then whether it all learns."""

import math
from dataclasses import replace

import pytest
import torch
from small_model import small_network
from tiny_networks import tiny_config

from occany_core.errors import ConfigError
from occany_core.network import NetworkConfig, OccAnyNetwork, tiny
from occany_core.network.prompt_decoder import (
    ClassProbe,
    PointLabel,
    PromptDecoder,
    PromptedMasks,
    Prompts,
    drawn_prompts,
)
from occany_core.semantics.detections import boxes_of_masks
from occany_core.synthetic.classes import SemanticClass
from occany_core.synthetic.teacher import StreetTeacher
from occany_core.synthetic.teacher_statistics import surround_views
from occany_core.training.mask_losses import (
    MaskLossSettings,
    dice_term,
    focal_term,
    mask_iou,
    mask_terms,
    prompting_loss,
    weights_of_classes,
)
from occany_core.training.prompts import (
    PromptSettings,
    cells_of,
    sample_prompts,
)

DIMS, SIDE = (16, 8, 4), 4
"""Of a small decoder: channels and side of the coarse grid."""


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def levels_of(views, seed=0, dims=DIMS, side=SIDE):
    random = generator(seed)
    sides = (side, 2 * side, 4 * side)
    return [
        torch.randn(views, channels, n, n, generator=random) for channels, n in zip(dims, sides)
    ]


def decoder_with_random_weights(seed=0):
    """Also where training starts from zero."""
    torch.manual_seed(seed)
    decoder = PromptDecoder(DIMS)
    torch.nn.init.normal_(decoder.mask.fc2.weight)
    return decoder


def answer(decoder, levels, prompts):
    coarse, middle, fine = levels
    return decoder(coarse, (fine, middle), prompts)


def mixed_prompts(views=2, number=3, seed=1):
    random = generator(seed)
    points = torch.rand(views, number, 3, 2, generator=random)
    labels = torch.tensor([[2, 3, -1], [1, 0, 1], [1, -1, -1]]).expand(views, number, 3)
    return Prompts(points, labels)


# --- the decoder -----------------------------------------------------------------------------


def test_masks_have_a_quarter_of_the_square_picture_and_qualities_are_shares():
    answers = answer(decoder_with_random_weights(), levels_of(2), mixed_prompts())
    assert answers.logits.shape == (2, 3, 4 * SIDE, 4 * SIDE)
    assert answers.quality.shape == (2, 3)
    assert ((answers.quality > 0) & (answers.quality < 1)).all()


def test_prompts_and_views_do_not_influence_each_other():
    decoder, levels, prompts = decoder_with_random_weights(), levels_of(2), mixed_prompts()
    together = answer(decoder, levels, prompts)
    for view in range(2):
        for number in range(3):
            one = Prompts(
                prompts.points[view : view + 1, number : number + 1],
                prompts.labels[view : view + 1, number : number + 1],
            )
            alone = answer(decoder, [level[view : view + 1] for level in levels], one)
            torch.testing.assert_close(
                alone.logits[0, 0], together.logits[view, number], rtol=1e-3, atol=1e-4
            )
            torch.testing.assert_close(alone.quality[0, 0], together.quality[view, number])


def test_what_fills_up_a_prompt_is_nowhere():
    decoder, levels, prompts = decoder_with_random_weights(), levels_of(2), mixed_prompts()
    is_none = (prompts.labels == PointLabel.NONE)[..., None]
    moved = replace(prompts, points=torch.where(is_none, 0.9, prompts.points))
    torch.testing.assert_close(
        answer(decoder, levels, moved).logits, answer(decoder, levels, prompts).logits
    )


@pytest.mark.parametrize("level", range(3))
def test_every_level_and_every_point_counts(level):
    decoder, levels, prompts = decoder_with_random_weights(), levels_of(2), mixed_prompts()
    before = answer(decoder, levels, prompts).logits
    changed = list(levels)
    changed[level] = changed[level].roll(1, dims=-1)
    assert (answer(decoder, changed, prompts).logits - before).abs().amax((2, 3)).min() > 1e-3
    points = prompts.points.clone()
    points[:, :, 0] = 1 - points[:, :, 0]
    moved = answer(decoder, levels, replace(prompts, points=points)).logits
    assert (moved - before).abs().amax((2, 3)).min() > 1e-3


def test_untrained_decoders_answer_with_the_box():
    boxes = torch.tensor([[[0.25, 0.5, 0.75, 1.0], [0.0, 0.0, 0.5, 0.25]]])
    torch.manual_seed(0)
    found = answer(PromptDecoder(DIMS), levels_of(1), Prompts.of_boxes(boxes)).logits > 0
    expected = torch.zeros(1, 2, 16, 16, dtype=torch.bool)
    expected[0, 0, 8:16, 4:12] = True
    expected[0, 1, 0:4, 0:8] = True
    assert mask_iou(found, expected).min() > 0.8


def test_drawn_prompts_show_boxes_and_clicks():
    points = torch.tensor([[[[0.25, 0.5], [0.75, 1.0]], [[0.625, 0.375], [0.125, 0.875]]]])
    labels = torch.tensor([[[2, 3], [1, 0]]])
    drawn = drawn_prompts(Prompts(points, labels), 4)
    box = torch.zeros(4, 4)
    box[2:, 1:3] = 1
    torch.testing.assert_close(drawn[0, 0, 0], box)
    assert not drawn[0, 0, 1:].any() and not drawn[0, 1, 0].any()
    inside, outside = drawn[0, 1, 1], drawn[0, 1, 2]
    assert inside[1, 2] == outside[3, 0] == 1
    assert inside.sum() < 1.1 and outside.sum() < 1.1


def test_a_network_has_them_only_when_asked():
    plain = OccAnyNetwork(tiny_config("patch"))
    names = ("prompt_decoder.", "class_probe.")
    assert not [key for key in plain.state_dict() if key.startswith(names)]
    config = replace(tiny_config("patch"), prompt_classes=18)
    network = OccAnyNetwork(NetworkConfig.from_dict(config.to_dict()))
    more = {key for key in network.state_dict() if key.startswith(names)}
    assert set(network.state_dict()) - more == set(plain.state_dict())
    assert more
    with pytest.raises(ConfigError, match="prompt_classes"):
        replace(config, segmentation_dims=None)
    with pytest.raises(ConfigError, match="multiple of 8"):
        replace(config, segmentation_dims=(12, 8, 4))
    stored = plain.config.to_dict()
    del stored["prompt_classes"], stored["conditioning_levels"]  # cards that are older
    assert NetworkConfig.from_dict(stored) == plain.config
    assert tiny().prompt_classes == len(SemanticClass)
    assert small_network().config.prompt_classes is None


# --- prompts ---------------------------------------------------------------------------------


def instance_map():
    """Two views: three instances and one of too few pixels; one instance."""
    maps = torch.zeros(2, 32, 64, dtype=torch.long)
    maps[0, 2:12, 4:24] = 5
    maps[0, 14:30, 10:14] = 9
    maps[0, 20:28, 40:64] = 2
    maps[0, 0, 60] = 7
    maps[1, 8:24, 8:40] = 3
    return maps


def test_prompts_ask_for_each_large_instance_once():
    settings = PromptSettings(number=5, least_cells=8)
    maps = instance_map()
    drawn = sample_prompts(maps, 32, settings, generator())
    assert drawn.valid.sum(dim=1).tolist() == [3, 1]
    cells = cells_of(maps, 32)
    found = [int(cells[0][mask].unique()) for mask in drawn.masks[0][drawn.valid[0]]]
    assert sorted(found) == [2, 5, 9]
    for mask, number in zip(drawn.masks[0], found):
        assert torch.equal(mask, cells[0] == number)
    assert not drawn.masks[~drawn.valid].any()


def test_boxes_without_jitter_are_those_of_the_masks():
    settings = PromptSettings(number=3, box_share=1.0, jitter=0.0)
    drawn = sample_prompts(instance_map(), 32, settings, generator())
    masks = drawn.masks[0]
    for mask, points, labels in zip(masks, drawn.prompts.points[0], drawn.prompts.labels[0]):
        rows, columns = mask.any(dim=1).nonzero()[:, 0], mask.any(dim=0).nonzero()[:, 0]
        expected = torch.tensor([[columns[0], rows[0]], [columns[-1] + 1, rows[-1] + 1]]) / 32
        torch.testing.assert_close(points[:2], expected)
        assert labels.tolist() == [2, 3, -1]


def test_jitter_moves_boxes_a_little_and_keeps_them_in_the_picture():
    maps = instance_map()
    settings = PromptSettings(number=3, box_share=1.0, jitter=0.1)
    moves = []
    for seed in range(20):
        drawn = sample_prompts(maps, 32, settings, generator(seed))
        boxes = drawn.prompts.points[..., :2, :].flatten(-2)
        assert (boxes >= 0).all() and (boxes <= 1).all()
        exact = boxes_of_masks(drawn.masks)
        size = (exact[..., 2:] - exact[..., :2]).repeat(1, 1, 2)
        moves.append(((boxes - exact) / size)[drawn.valid])
    moves = torch.cat(moves)
    assert moves.abs().max() <= 0.2 + 1e-5
    assert 0.06 < moves.std() < 0.11


def test_clicks_lie_where_their_labels_say():
    settings = PromptSettings(number=3, box_share=0.0, points=4)
    maps, side = instance_map(), 32
    kinds = set()
    for seed in range(10):
        drawn = sample_prompts(maps, side, settings, generator(seed))
        for view, number in drawn.valid.nonzero().tolist():
            labels = drawn.prompts.labels[view, number].tolist()
            cells = (drawn.prompts.points[view, number] * side).long().tolist()
            assert labels[0] == PointLabel.INSIDE
            for label, (x, y) in zip(labels, cells):
                inside = bool(drawn.masks[view, number, y, x])
                assert label == PointLabel.NONE or inside == (label == PointLabel.INSIDE)
            kinds |= set(labels)
    assert kinds == {PointLabel.INSIDE, PointLabel.OUTSIDE, PointLabel.NONE}


def test_both_kinds_of_prompts_are_drawn_and_seeds_repeat():
    settings = PromptSettings(number=3, box_share=0.5)
    drawn = [sample_prompts(instance_map(), 32, settings, generator(s)) for s in (*range(12), 0)]
    labels = torch.stack([one.prompts.labels[..., 0] for one in drawn])
    share = (labels == PointLabel.TOP_LEFT).float().mean()
    assert 0.3 < share < 0.7
    assert torch.equal(drawn[0].prompts.points, drawn[-1].prompts.points)
    assert torch.equal(drawn[0].masks, drawn[-1].masks)


def test_views_without_instances_have_no_valid_prompts():
    drawn = sample_prompts(torch.zeros(2, 8, 8).long(), 16, PromptSettings(), generator())
    assert not drawn.valid.any()
    assert torch.isfinite(drawn.prompts.points).all()


# --- losses ----------------------------------------------------------------------------------


def test_terms_of_a_small_mask():
    logits = torch.tensor([[[2.0, -1.0], [0.5, -3.0]]])
    masks = torch.tensor([[[True, False], [False, False]]])
    chances = [1 / (1 + math.exp(-x)) for x in (2.0, -1.0, 0.5, -3.0)]
    right = [chances[0], *(1 - p for p in chances[1:])]
    weight = [0.3, 0.7, 0.7, 0.7]
    focal = [-w * (1 - p) ** 2 * math.log(p) for w, p in zip(weight, right)]
    found = focal_term(logits, masks, MaskLossSettings(inside_share=0.3))
    torch.testing.assert_close(found, torch.tensor([sum(focal) / 4]))
    dice = 1 - (2 * chances[0] + 1) / (sum(chances) + 1 + 1)
    torch.testing.assert_close(dice_term(logits, masks), torch.tensor([dice]))
    assert mask_iou(logits > 0, masks).tolist() == [0.5]
    assert mask_iou(masks & False, masks & False).tolist() == [1.0]


def test_terms_are_means_over_valid_prompts_and_vanish_at_the_truth():
    masks = sample_prompts(instance_map(), 16, PromptSettings(), generator()).masks
    valid = masks.flatten(2).any(dim=2)
    assert 0 < valid.sum() < valid.numel()
    sure = torch.where(masks, 40.0, -40.0)
    sure[~valid] = 40.0  # wrong, but nobody asked
    perfect = PromptedMasks(sure, torch.where(valid, 1.0, 0.3))
    for term in mask_terms(perfect, masks, valid, MaskLossSettings()):
        assert float(term) < 1e-6
    unsure = PromptedMasks(sure, torch.where(valid, 0.5, 0.9))
    torch.testing.assert_close(
        mask_terms(unsure, masks, valid, MaskLossSettings())[2], torch.tensor(0.25)
    )
    nobody = mask_terms(unsure, masks, valid & False, MaskLossSettings())
    assert [float(term) for term in nobody] == [0.0, 0.0, 0.0]


def test_features_get_no_gradient_but_decoder_and_probe_do():
    levels = [level.requires_grad_() for level in levels_of(2)]
    decoder, probe = decoder_with_random_weights(), ClassProbe(DIMS, 3)
    targets = sample_prompts(instance_map(), 4 * SIDE, PromptSettings(least_cells=2), generator())
    classes = torch.zeros(2, 4 * SIDE, 4 * SIDE, dtype=torch.long)
    weights = weights_of_classes(torch.tensor([10, 10, 0]))
    settings = MaskLossSettings(focal=2.0, dice=3.0, quality=5.0, classes=7.0)
    loss = prompting_loss(decoder, probe, levels, targets, classes, weights, settings)
    expected = 2 * loss.focal + 3 * loss.dice + 5 * loss.quality + 7 * loss.classes
    torch.testing.assert_close(loss.total, expected)
    loss.total.backward()
    assert all(level.grad is None for level in levels)
    without = [
        name
        for name, weight in [*decoder.named_parameters(), *probe.named_parameters()]
        if weight.grad is None or not weight.grad.any()
    ]
    # a key bias moves all scores of a query alike, so that it changes nothing
    assert [name for name in without if not name.endswith("key.bias")] == []


def test_features_learn_to_be_asked_where_that_is_wanted():
    levels = [level.requires_grad_() for level in levels_of(2)]
    targets = sample_prompts(instance_map(), 4 * SIDE, PromptSettings(least_cells=2), generator())
    classes = torch.zeros(2, 4 * SIDE, 4 * SIDE, dtype=torch.long)
    settings = MaskLossSettings(shapes_features=True)
    networks = decoder_with_random_weights(), ClassProbe(DIMS, 3)
    prompting_loss(*networks, levels, targets, classes, torch.ones(3), settings).total.backward()
    assert all(level.grad.any() for level in levels)


def test_common_classes_weigh_less_and_the_mean_over_cells_is_one():
    counts = torch.tensor([900, 90, 9, 1, 0])
    weights = weights_of_classes(counts)
    torch.testing.assert_close((weights * counts).sum() / 1000, torch.tensor(1.0))
    torch.testing.assert_close(weights[1] / weights[0], torch.tensor(10.0).sqrt())
    assert weights[3] == weights[4]  # rarer than one in a thousand is as rare as that


@pytest.mark.parametrize(
    "make",
    [
        lambda: PromptSettings(points=1),
        lambda: PromptSettings(box_share=1.5),
        lambda: MaskLossSettings(dice=-1.0),
        lambda: MaskLossSettings(inside_share=1.0),
    ],
)
def test_impossible_settings_are_named(make):
    with pytest.raises(ConfigError):
        make()


# --- learning --------------------------------------------------------------------------------

LEARNING_DIMS, LEARNING_SIZE = (64, 32, 16), 128
STEPS, VIEWS = 120, 4


def features_of_worlds(seeds):
    """Levels, instances and classes of the six views of each world, on the fine level's cells."""
    teacher = StreetTeacher(LEARNING_DIMS, LEARNING_SIZE)
    worlds = [surround_views(seed, 96, 56) for seed in seeds]
    levels = [torch.cat(level) for level in zip(*(teacher(seen) for seen in worlds))]
    instance, classes = (
        torch.cat([cells_of(getattr(seen, name), LEARNING_SIZE // 4) for seen in worlds])
        for name in ("instance", "semantics")
    )
    return levels, instance, classes


@pytest.mark.slow
def test_decoder_and_probe_learn_on_the_teacher_and_hold_in_other_worlds():
    torch.manual_seed(0)
    random, side = generator(), LEARNING_SIZE // 4
    levels, instance, classes = features_of_worlds(range(10))
    decoder, probe = PromptDecoder(LEARNING_DIMS), ClassProbe(LEARNING_DIMS, len(SemanticClass))
    weights = weights_of_classes(torch.bincount(classes.flatten(), minlength=len(SemanticClass)))
    groups = [{"params": decoder.parameters()}, {"params": probe.parameters(), "lr": 0.02}]
    optimizer = torch.optim.AdamW(groups, lr=0.002)
    for _ in range(STEPS):
        picked = torch.randperm(len(instance), generator=random)[:VIEWS]
        targets = sample_prompts(instance[picked], side, PromptSettings(), random)
        some = [level[picked] for level in levels]
        loss = prompting_loss(
            decoder, probe, some, targets, classes[picked], weights, MaskLossSettings()
        )
        optimizer.zero_grad()
        loss.total.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
    levels, instance, classes = features_of_worlds(range(500, 504))
    targets = sample_prompts(
        instance, side, PromptSettings(box_share=1.0, jitter=0.0), generator(1)
    )
    with torch.no_grad():
        answers = answer(decoder, levels, targets.prompts)
        probed = probe(*levels).argmax(dim=1)
    overlap = mask_iou(answers.logits > 0, targets.masks)[targets.valid]
    filled = drawn_prompts(targets.prompts, side)[:, :, 0] > 0.5
    of_boxes = mask_iou(filled, targets.masks)[targets.valid]
    misjudged = (answers.quality[targets.valid] - overlap).abs()
    right = (probed == classes).float().mean()
    hard = of_boxes < 0.7  # shapes that do not fill their box
    assert overlap.mean() > of_boxes.mean() + 0.02
    assert overlap[hard].mean() > of_boxes[hard].mean() + 0.05
    assert misjudged.mean() < 0.2
    assert right > 0.85

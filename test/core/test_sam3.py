# SPDX-License-Identifier: Apache-2.0
"""SAM3 asked by texts, with a tiny random one of transformers."""

import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from tiny_detectors import save_sam3

from occany_core.errors import CheckpointError, ConfigError, InputError
from occany_core.images import SIGNED, segmentation_tensor
from occany_core.semantics.class_prompts import PromptTable
from occany_core.semantics.painting import paint_observed
from occany_core.semantics.sam3 import (
    Sam3Features,
    Sam3Segmenter,
    TextPrompts,
    empty_geometry_token,
    load_sam3,
    resized_masks,
)
from occany_core.voxels import ClassTable

CLASSES = ClassTable(9, other=8, empty=0)
PROMPTS = PromptTable(
    ("sky", "car", "traffic-sign", "tree", "thing", "van", "road"), (0, 1, 2, 3, 8, 1, 4)
)
ASKED = ["car", "traffic-sign", "tree", "van", "road"]
SIZE = 112
PICTURE = (40, 70)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip(
        "transformers", reason="transformers, the extra [semantics], is not installed"
    )
    return save_sam3(tmp_path_factory.mktemp("sam3"))


@pytest.fixture(scope="module")
def loaded(folder):
    return load_sam3(folder)


@pytest.fixture
def library(loaded, monkeypatch):
    """The library's module, with noise where torchvision would pool features under boxes.

    Whatever a box that is marked as padding brings in, it must not matter.
    """
    from transformers.models.sam3 import modeling_sam3

    def roi_align(features, boxes, size):
        assert len(boxes) == len(features)
        return torch.randn(len(boxes), features.shape[1], size, size)

    ops = SimpleNamespace(roi_align=roi_align)
    monkeypatch.setattr(modeling_sam3, "torchvision", SimpleNamespace(ops=ops), raising=False)
    return modeling_sam3


def with_settings(loaded, **settings):
    return Sam3Segmenter(loaded.model, loaded.tokenizer, **settings)


def pictures(number):
    generator = torch.Generator().manual_seed(number)
    return torch.randint(0, 256, (number, *PICTURE, 3), generator=generator, dtype=torch.uint8)


def predicted_features(number, side=6):
    """Of another size than the model's own, as the network's are."""
    generator = torch.Generator().manual_seed(number)
    sides = (4 * side, 2 * side, side)
    return Sam3Features(*(torch.randn(number, 32, s, s, generator=generator) for s in sides))


def tokens(loaded, texts):
    return loaded.tokenizer(texts, padding="max_length", max_length=32, return_tensors="pt")


def padding_box(times, values=(0.5, 0.5, 1.0, 1.0)):
    return {
        "input_boxes": torch.tensor(values).expand(times, 1, 4),
        "input_boxes_labels": torch.full((times, 1), -10),
    }


def score(answer):
    return answer.pred_logits.sigmoid() * answer.presence_logits.sigmoid()


def same(ours, theirs, **tolerance):
    torch.testing.assert_close(ours, theirs, **{"rtol": 1e-4, "atol": 1e-5} | tolerance)


def found_by_the_library(loaded, rgb, min_score):
    """One prompt and one picture at a time, by the library's own way from pixels and ids."""
    found = []
    for one in rgb:
        picture = segmentation_tensor(one[None], SIZE, SIGNED)
        rows = []
        for text, label in zip(ASKED, (1, 2, 3, 1, 4)):
            answer = loaded.model(pixel_values=picture, **tokens(loaded, [text]), **padding_box(1))
            kept = score(answer)[0] > min_score
            masks = F.interpolate(answer.pred_masks, PICTURE, mode="bilinear")[0].sigmoid() > 0.5
            rows += zip(masks[kept], score(answer)[0][kept].tolist(), [label] * int(kept.sum()))
        found.append(rows)
    return found


@pytest.mark.parametrize("chunk", [1, 3, 8])
def test_pictures_are_labelled_as_by_the_library_with_a_box_of_padding(loaded, library, chunk):
    rgb = pictures(2)
    everything = with_settings(loaded, min_score=0.0)
    texts = everything.text_prompts(PROMPTS, CLASSES)
    scores = torch.cat([found.scores for found in everything.masks_in_pictures(rgb, texts)])
    assert len(scores) == 2 * 5 * 10
    min_score = float(scores.sort().values[60:62].mean())
    segmenter = with_settings(loaded, min_score=min_score, chunk=chunk)
    ours = list(segmenter.masks_in_pictures(rgb, texts))
    theirs = found_by_the_library(loaded, rgb, min_score)
    assert sum(map(len, theirs)) == 39
    for found, rows in zip(ours, theirs):
        assert found.labels.tolist() == [label for _, _, label in rows]
        same(found.scores, torch.tensor([value for _, value, _ in rows]))
        wrong = found.masks != torch.stack([mask for mask, _, _ in rows])
        assert wrong.float().mean() < 1e-3
        assert found.masks.shape[1:] == PICTURE and found.masks.dtype == torch.bool
        assert 0 < found.masks.float().mean() < 1
    painted = paint_observed(ours[0], CLASSES)
    assert len(painted.unique()) > 1


def test_features_and_pictures_go_the_same_way(loaded):
    rgb = pictures(2)
    segmenter = with_settings(loaded, min_score=0.0)
    texts = segmenter.text_prompts(PROMPTS, CLASSES)
    seen = loaded.model.get_vision_features(segmentation_tensor(rgb, SIZE, SIGNED))
    features = Sam3Features(*seen.fpn_hidden_states[:3])
    assert [level.shape[-1] for level in features.levels] == [32, 16, 8]
    by_features = list(segmenter.masks_in_features(features, texts, PICTURE))
    by_pictures = list(segmenter.masks_in_pictures(rgb, texts))
    assert len(by_features) == len(by_pictures) == 2
    for one, other in zip(by_features, by_pictures):
        same(one.scores, other.scores)
        assert torch.equal(one.labels, other.labels)
        assert (one.masks != other.masks).float().mean() < 1e-3


def test_all_views_and_prompts_at_once_give_the_same_as_one_by_one(loaded, library):
    """Features of sizes for which the model was not made; views outermost."""
    features = predicted_features(3)
    segmenter = with_settings(loaded, min_score=0.0, chunk=2)
    texts = segmenter.text_prompts(PROMPTS, CLASSES)
    ours = list(segmenter.masks_in_features(features, texts, (24, 24)))
    encode = loaded.model.vision_encoder.neck.position_encoding
    levels = [level.repeat_interleave(5, dim=0) for level in features.levels]
    codes = [encode(level.shape, level.device, level.dtype) for level in levels]
    answer = loaded.model(
        vision_embeds=library.Sam3VisionEncoderOutput(
            fpn_hidden_states=(*levels, levels[2][..., :1, :1]),
            fpn_position_encoding=(*codes, codes[2][..., :1, :1]),
        ),
        text_embeds=SimpleNamespace(pooler_output=texts.features.repeat(3, 1, 1)),
        attention_mask=texts.is_token.repeat(3, 1).long(),
        **padding_box(15),
    )
    same(torch.stack([found.scores for found in ours]), score(answer).reshape(3, 50))
    masks = torch.stack([found.masks for found in ours]).reshape(15, 10, 24, 24)
    assert (masks != (answer.pred_masks.sigmoid() > 0.5)).float().mean() < 1e-3
    for index in range(3):
        (alone,) = segmenter.masks_in_features(
            features.views(slice(index, index + 1)), texts, (24, 24)
        )
        same(alone.scores, ours[index].scores)
    assert not torch.allclose(ours[0].scores, ours[1].scores, atol=1e-3)


def test_the_token_of_an_empty_geometric_prompt_matters_and_the_box_of_padding_does_not(
    loaded, library
):
    given = {
        "pixel_values": segmentation_tensor(pictures(1), SIZE, SIGNED),
        **tokens(loaded, ["tree"]),
    }
    without = score(loaded.model(**given))
    boxed = [
        score(loaded.model(**given, **padding_box(1, values)))
        for values in ((0.5, 0.5, 1.0, 1.0), (0.1, 0.9, 0.05, 0.3))
    ]
    same(boxed[0], boxed[1])
    assert (boxed[0] - without).abs().max() > 1e-3
    segmenter = with_settings(loaded, min_score=0.0)
    texts = segmenter.text_prompts(PromptTable(("tree",), (3,)), CLASSES)
    (ours,) = segmenter.masks_in_pictures(pictures(1), texts)
    same(ours.scores, boxed[0][0])


def test_the_token_is_the_one_that_the_library_makes_beside_a_box(loaded, library):
    features = predicted_features(2)
    encode = loaded.model.vision_encoder.neck.position_encoding
    code = encode(features.coarse.shape, torch.device("cpu"), torch.float32)
    theirs = loaded.model.geometry_encoder(
        box_embeddings=torch.rand(2, 1, 4),
        box_mask=torch.zeros(2, 1, dtype=torch.bool),
        box_labels=torch.zeros(2, 1, dtype=torch.long),
        img_feats=(features.coarse,),
        img_pos_embeds=(code,),
    )
    assert theirs.attention_mask.tolist() == [[True, False]] * 2
    ours = empty_geometry_token(loaded.model, features.coarse, code)
    same(ours, theirs.last_hidden_state[:, :1])
    assert not torch.allclose(ours[0], ours[1], atol=1e-3)


def test_texts_are_read_once_and_only_those_that_can_be_painted(loaded):
    texts = with_settings(loaded, chunk=2).text_prompts(PROMPTS, CLASSES)
    assert texts.labels.tolist() == [1, 2, 3, 1, 4]
    assert texts.features.shape == (5, 32, 32) and texts.is_token.shape == (5, 32)
    assert texts.is_token.sum(dim=1).tolist() == [5, 14, 6, 5, 6]  # letters, start and end
    whole = loaded.model.get_text_features(**tokens(loaded, ASKED)).pooler_output
    same(texts.features[texts.is_token], whole[texts.is_token])
    assert not texts.features.requires_grad
    segmenter = with_settings(loaded)
    first = segmenter.text_prompts(PROMPTS, CLASSES)
    assert segmenter.text_prompts(PROMPTS, CLASSES) is first
    other = segmenter.text_prompts(PROMPTS, ClassTable(9, other=4, empty=3))
    assert other.labels.tolist() == [0, 1, 2, 8, 1]
    same(segmenter.text_prompts(PROMPTS, CLASSES).features, first.features)


def test_prompts_that_cannot_be_asked_are_named(loaded):
    with pytest.raises(InputError, match="no prompts"):
        loaded.text_prompts(PromptTable(("sky", "thing"), (0, 8)), CLASSES)
    with pytest.raises(InputError, match="has 42 tokens and SAM3 reads 32"):
        loaded.text_prompts(PromptTable(("car", "x" * 40), (1, 1)), CLASSES)


def test_nothing_found_is_no_mask(loaded):
    segmenter = with_settings(loaded, min_score=0.999)
    texts = segmenter.text_prompts(PROMPTS, CLASSES)
    for found in segmenter.masks_in_pictures(pictures(2), texts):
        assert found.masks.shape == (0, *PICTURE) and found.masks.dtype == torch.bool
        assert not paint_observed(found, CLASSES).any()


def test_taking_masks_view_by_view_leaves_gradients_alone(loaded):
    texts = loaded.text_prompts(PROMPTS, CLASSES)
    for _ in loaded.masks_in_pictures(pictures(1), texts):
        assert torch.is_grad_enabled()


def test_masks_are_resized_before_they_are_judged():
    logits = torch.tensor([[[-1.0, 3.0]]])
    assert resized_masks(logits, (1, 8))[0, 0].tolist() == [False] * 3 + [True] * 5
    assert not resized_masks(torch.zeros(1, 2, 2), (4, 4)).any()  # exactly one half


def test_pictures_are_squashed_whole_into_values_from_minus_one_to_one():
    half = torch.zeros(1, 40, 100, 3, dtype=torch.uint8)
    half[:, :, 50:] = 255
    left, right = segmentation_tensor(half, 64, SIGNED)[0].split(32, dim=2)
    assert left.shape == (3, 64, 32)
    same(left[:, :, :-4], torch.full_like(left[:, :, :-4], -1))
    same(right[:, :, 4:], torch.full_like(right[:, :, 4:], 1))


def test_levels_that_do_not_belong_together_are_refused():
    fine, middle, coarse = predicted_features(2).levels
    for wrong in ((coarse, middle, fine), (fine, coarse, coarse), (fine[:1], middle, coarse)):
        with pytest.raises(InputError, match="fine first"):
            Sam3Features(*wrong)
    assert len(Sam3Features(fine, middle, coarse).views(slice(1, 2))) == 1


def test_wrong_pictures_and_settings_are_named(loaded):
    with pytest.raises(InputError, match="uint8"):
        next(loaded.features_of_pictures(pictures(1).float()))
    for settings in ({"chunk": 0}, {"min_score": 1.0}):
        with pytest.raises(ConfigError, match="chunk is"):
            with_settings(loaded, **settings)
    part = TextPrompts(torch.zeros(3, 2, 1), torch.ones(3, 2).bool(), torch.arange(3))
    assert part.prompts(slice(1, 3)).labels.tolist() == [1, 2]


def test_only_folders_with_the_whole_model_are_loaded(folder, tmp_path, monkeypatch):
    with pytest.raises(CheckpointError, match=r"there is no folder .*occany download sam3 --to"):
        load_sam3("facebook/sam3")
    with pytest.raises(CheckpointError, match="usable"):
        load_sam3(tmp_path)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"pip install 'occany_ros\[semantics\]'"):
        load_sam3(folder)


def test_the_published_folder_holds_a_tracker_too_which_is_left_out(folder, loaded, tmp_path):
    """The repository of SAM3 is one of transformers.Sam3VideoModel: a detector and a tracker."""
    from transformers import Sam3VideoConfig, Sam3VideoModel

    both = Sam3VideoModel(Sam3VideoConfig(detector_config=loaded.model.config.to_dict()))
    both.detector_model.load_state_dict(loaded.model.state_dict())
    both.save_pretrained(tmp_path)
    for path in folder.iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    detector = load_sam3(tmp_path).model
    assert detector.config.image_size == SIZE
    for name, weight in loaded.model.state_dict().items():
        assert torch.equal(weight, detector.state_dict()[name]), name


def test_three_entries_instead_of_four_would_silently_use_the_wrong_levels(loaded, library):
    """Why a fourth entry is given; and that the library still drops the last, whatever it is."""
    features = predicted_features(1)
    encode = loaded.model.vision_encoder.neck.position_encoding

    def scores_of(*levels):
        codes = [encode(level.shape, level.device, level.dtype) for level in levels]
        answer = loaded.model(
            vision_embeds=library.Sam3VisionEncoderOutput(
                fpn_hidden_states=levels, fpn_position_encoding=tuple(codes)
            ),
            **tokens(loaded, ["tree"]),
            **padding_box(1),
        )
        return answer.pred_masks.shape[-1], score(answer)[0]

    whole = features.levels
    side, four = scores_of(*whole, torch.zeros(1, 32, 3, 3))
    other_side, three = scores_of(*whole)
    same(scores_of(*whole, whole[0])[1], four, msg="the last level is not dropped any more")
    assert side == other_side == 24
    assert (four - three).abs().max() > 1e-3, "three levels are taken as three now"
    segmenter = with_settings(loaded, min_score=0.0)
    texts = segmenter.text_prompts(PromptTable(("tree",), (3,)), CLASSES)
    (ours,) = segmenter.masks_in_features(features, texts, (24, 24))
    same(ours.scores, four)


def test_what_is_relied_on_inside_transformers(loaded, library):
    """Says what changed when a new release of transformers breaks the segmenter."""
    model, config = loaded.model, library.Sam3Config()
    assert config.image_size == 1008, "SAM3 looks at pictures of another size"
    assert config.text_config.max_position_embeddings == 32, "texts have another length"
    sizes = config.vision_config.backbone_feature_sizes
    assert sizes == [[288, 288], [144, 144], [72, 72]], "levels have other sizes"
    assert config.vision_config.scale_factors == [4, 2, 1, 0.5], "another order of levels"
    read = model.get_text_features(**tokens(loaded, ["car"]))
    assert read.pooler_output.shape == (1, 32, 32), (
        "get_text_features(...).pooler_output is not (prompts, tokens, channels)"
    )
    seen = model.get_vision_features(torch.zeros(1, 3, SIZE, SIZE))
    assert len(seen.fpn_hidden_states) == 4, "get_vision_features(...) has not four levels"
    encode = model.vision_encoder.neck.position_encoding
    for level, code in zip(seen.fpn_hidden_states, seen.fpn_position_encoding):
        ours = encode(level.shape, level.device, level.dtype)
        assert torch.equal(ours, code), "the model codes positions in another way than its neck"
    answer = model(
        vision_embeds=seen,
        text_embeds=SimpleNamespace(pooler_output=read.pooler_output),
        attention_mask=tokens(loaded, ["car"])["attention_mask"],
    )
    assert answer.pred_masks.shape == (1, 10, 32, 32), "pred_masks is not (tasks, queries, h, w)"
    assert answer.pred_logits.shape == (1, 10), "pred_logits is not (tasks, queries)"
    assert answer.presence_logits.shape == (1, 1), "presence_logits is not (tasks, 1)"
    parts = "cls_embed final_proj prompt_layer_norm layers output_layer_norm".split()
    missing = [part for part in parts if not hasattr(model.geometry_encoder, part)]
    assert not missing, f"the geometry encoder lacks {missing}"

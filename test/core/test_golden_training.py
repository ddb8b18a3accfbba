# SPDX-License-Identifier: Apache-2.0
"""The golden checks of training pass, find what is wrong, and run on other sets of the layout."""

import json
import shutil
from collections import Counter

import golden_set as golden
import numpy as np
import pytest
import strategies
import torch
from safetensors.torch import load_file, save_file

from occany_core.bench.golden import training_data_sets, training_sets
from occany_core.errors import InputError

pytestmark = golden.needs_reference

CHECKS = training_sets.CHECKS | training_data_sets.CHECKS
SET = golden.REFERENCE / "golden_training"
FILES = sorted(p.name for p in SET.glob("*") if p.suffix in (".safetensors", ".json"))


def check(path):
    (found,) = [check for pattern, check in CHECKS.items() if path.match(pattern)]
    return found(path)


def verdicts(stages):
    return Counter(stage.verdict for stage in stages)


@pytest.fixture
def copy(tmp_path):
    """A copy of the whole set that may be written to."""
    for path in SET.iterdir():
        shutil.copyfile(path, tmp_path / path.name)
    return tmp_path


def rewrite(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("name", FILES)
def test_public_set_passes_and_nothing_is_left_out(name):
    stages = check(SET / name)
    assert stages
    assert set(verdicts(stages)) == {"ok"}, [stage for stage in stages if stage.verdict != "ok"]


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".safetensors")])
def test_losses_and_gradients_are_all_compared(name):
    compared = {stage.name for stage in check(SET / name)}
    outputs = ("loss", "grad_", "out_", "scale", "encoding", "kept", "gt_raymap")
    expected = {
        array
        for array in load_file(SET / name)
        if array.rpartition(".")[2].startswith(outputs) or array.endswith((".pts3d", ".valid"))
    }
    assert expected <= compared


DAMAGE = {  # file and array: stages that must notice
    ("mv_train", "grad_pts3d"): {"grad_pts3d"},
    ("mv_train", "grad_pose"): {"grad_pose"},
    ("mv_train", "pred_conf"): {"loss", "grad_conf", "meta.conf_loss_g"},
    ("mv_mixed_metric", "pred_pts3d_local"): {"loss", "meta.conf_loss_l"},
    ("mv_one_empty_item", "gt_c2w"): {"loss", "meta.Regr3D_multiview_pose"},
    ("mv_median", "loss"): {"loss"},
    ("distill_mv_mse_conf", "teacher_1"): {"loss", "grad_student_1", "meta.feat_1"},
    ("distill_plus_l1_conf", "conf"): {"loss", "grad_student_3"},
    ("enc_distill", "grad_student"): {"grad_student"},
    ("plus_pointmap_train", "grad_conf"): {"grad_conf"},
    ("plus_depth_conf_grad", "gt"): {"loss", "grad_pred"},
    ("plus_raymap_train", "gt_K"): {"gt_raymap", "loss"},
    ("plus_scaleinv_median", "scale"): {"scale"},
    ("plus_scaleinv_ransac", "grad_train"): {"grad_train"},
    ("pose_encoding", "encoding"): {"encoding"},
    ("lidar_projection", "kept"): {"kept"},
    ("lidar_projection", "depth"): {"depth"},
    ("data_pipeline", "wide_aug.out_K"): {"wide_aug.out_K"},
    ("data_pipeline", "landscape_noaug.out_image"): {"landscape_noaug.out_image"},
    ("data_pipeline", "tall_noaug.depth"): {"tall_noaug.out_depth", "tall_noaug.pts3d"},
    ("data_pipeline", "upscale_noaug.valid"): {"upscale_noaug.valid"},
    ("color_jitter", "out_b"): {"out_b"},
}


@pytest.mark.parametrize(("name", "array"), DAMAGE)
def test_one_wrong_array_is_found(copy, name, array):
    path = copy / f"{name}.safetensors"
    arrays = load_file(path)
    arrays[array] = moved(arrays[array])
    save_file(arrays, path)
    stages = check(path)
    failed = {stage.name for stage in stages if stage.verdict == "FAIL"}
    assert failed >= DAMAGE[name, array]
    assert not verdicts(stages)["not checked"]


def moved(array):
    if array.dtype == torch.bool:
        return ~array
    if array.dtype == torch.uint8:
        return array ^ 64
    if not array.is_floating_point():
        return array + 1
    return array + 0.01 * array.abs().max()


JSON_DAMAGE = {
    "a drawn sample": (
        "sampler.json",
        lambda c: swap(only(c, "fixed5")),
    ),
    "counts of draws": (
        "sampler.json",
        lambda c: shift(only(c, "fixed5")),
    ),
    "a window": ("index.json", lambda c: c["surround"]["seqs"].pop(3)),
    "a frame name": ("index.json", lambda c: c["temporal"]["frames"].reverse()),
    "a learning rate": ("meta.json", lambda c: spoil(c["lr_schedule"], "lr_group_scale_1_and_10")),
    "a decaying bias": ("meta.json", lambda c: c["param_groups"][0]["names"].append("x.bias")),
    "a case without file": ("meta.json", lambda c: c["cases"].update(mv_lost={})),
}


def only(content, name):
    """Leave one group of settings, because each takes seconds."""
    for other in [other for other in content if other != name]:
        del content[other]
    return content[name]


def swap(group):
    rows = group["sequences"]["epoch0_rank0"]
    rows[0], rows[-1] = rows[-1], rows[0]


def shift(group):
    counts = group["stats_200k"]["recon_views"]
    first, second = list(counts)[:2]
    counts[first] += 1500
    counts[second] -= 1500


def spoil(table, name):
    table[name][4][0] *= 1.001


@pytest.mark.parametrize("what", JSON_DAMAGE)
def test_a_wrong_entry_is_found(copy, what):
    name, change = JSON_DAMAGE[what]
    rewrite(copy / name, change)
    assert verdicts(check(copy / name))["FAIL"] == 1


def test_wrong_scalars_of_the_manifest_are_found(copy):
    rewrite(copy / "meta.json", lambda c: c["cases"]["mv_train"]["details"].update(conf_loss_g=1))
    failed = [s.name for s in check(copy / "mv_train.safetensors") if s.verdict == "FAIL"]
    assert failed == ["meta.conf_loss_g"]


def test_what_nobody_knows_is_reported(copy):
    rewrite(copy / "meta.json", lambda c: c.update(novel=1))
    assert verdicts(check(copy / "meta.json"))["not checked"] == 1
    rewrite(copy / "index.json", lambda c: c["temporal"].update(novel=1))
    assert verdicts(check(copy / "index.json"))["not checked"] == 1
    rewrite(copy / "meta.json", lambda c: c["cases"]["mv_train"].update(novel=1))
    with pytest.raises(InputError, match="unknown settings novel"):
        check(copy / "mv_train.safetensors")
    rewrite(copy / "meta.json", lambda c: c["cases"].pop("enc_distill"))
    with pytest.raises(InputError, match="says nothing about enc_distill"):
        check(copy / "enc_distill.safetensors")


# --- another set of the same layout --------------------------------------------------------------


def other_points(rng):
    """Inputs of another size, and their loss by the formulas of training page 4, in float64."""
    batch, views, height, width = 3, 2, 5, 7
    poses = strategies.motion(rng, batch, views)
    poses[:, 0] = torch.eye(4)
    truth = torch.from_numpy(rng.normal(0, 9, (batch, views, height, width, 3)))
    valid = torch.from_numpy(rng.random((batch, views, height, width)) < 0.7)
    pose = torch.from_numpy(rng.normal(size=(batch, views, 7)))
    noise = torch.from_numpy(rng.normal(0, 1, (2, *truth.shape)))
    turned = poses[..., :3, :3].transpose(-1, -2)
    moved = truth - poses[..., None, None, :3, 3]
    local = torch.einsum("bnij,bnhwj->bnhwi", turned, moved)
    ours = {
        "pts3d": truth + noise[0],
        "pts3d_local": local + noise[1],
        "conf": 1 + torch.from_numpy(rng.uniform(0.1, 5, valid.shape)),
        "pose": pose,
    }
    inputs = {"gt_c2w": poses, "gt_pts3d": truth, "valid": valid}
    return ours, inputs | {"is_metric": torch.ones(batch, dtype=torch.bool)}, local


def test_another_set_with_other_names_and_sizes(tmp_path):
    ours, inputs, local = other_points(np.random.default_rng(11))
    for tensor in ours.values():
        tensor.requires_grad_()
    alpha, losses = 0.35, []
    for points, truth in ((ours["pts3d"], inputs["gt_pts3d"]), (ours["pts3d_local"], local)):
        errors = []
        for item, valid in enumerate(inputs["valid"]):
            scale = inputs["gt_pts3d"][item][valid].norm(dim=-1).mean()
            confidence = ours["conf"][item][valid]
            distance = (points[item][valid] - truth[item][valid]).norm(dim=-1) / scale
            errors.append(confidence * distance - alpha * confidence.log())
        losses.append(torch.cat(errors).mean())
    total = sum(losses)
    gradients = torch.autograd.grad(total, list(ours.values()), allow_unused=True)
    arrays = inputs | {f"pred_{name}": tensor for name, tensor in ours.items()}
    for (name, tensor), gradient in zip(ours.items(), gradients):
        arrays[f"grad_{name}"] = torch.zeros_like(tensor) if gradient is None else gradient
    arrays["loss"] = total
    arrays = {
        name: (value.detach() if value.dtype == torch.bool else value.detach().float())
        for name, value in arrays.items()
    }
    save_file({k: v.contiguous() for k, v in arrays.items()}, tmp_path / "mv_larger.safetensors")
    case = {
        "norm_mode": "?avg_dis",
        "alpha": alpha,
        "pose_weight": 0,
        "gt_scale": False,
        "confidence": True,
        "loss": total.item(),
        "details": {"conf_loss_g": losses[0].item(), "conf_loss_l": losses[1].item()},
    }
    (tmp_path / "meta.json").write_text(json.dumps({"cases": {"mv_larger": case}}))
    stages = check(tmp_path / "mv_larger.safetensors")
    assert set(verdicts(stages)) == {"ok"}, [s for s in stages if s.verdict != "ok"]
    assert {"loss", "grad_pts3d", "grad_pts3d_local", "grad_conf", "meta.conf_loss_l"} <= {
        stage.name for stage in stages
    }


def test_cases_of_the_pipeline_may_have_other_names(copy):
    path = copy / "data_pipeline.safetensors"
    arrays = {n.replace("wide", "narrow"): a for n, a in load_file(path).items()}
    arrays = {n: a for n, a in arrays.items() if not n.startswith("tall_noaug")}
    save_file(arrays, path)

    def rename(content):
        cases = content["data_pipeline"]
        del cases["tall_noaug"]
        for name in [name for name in cases if "wide" in name]:
            cases[name.replace("wide", "narrow")] = cases.pop(name)

    rewrite(copy / "meta.json", rename)
    stages = check(path)
    assert set(verdicts(stages)) == {"ok"}
    assert len(stages) == 5 * len({name.partition(".")[0] for name in arrays})


def test_scenes_and_cameras_of_the_index_may_have_other_names(copy):
    text = (copy / "index.json").read_text()
    for scene in "AB":
        text = text.replace(f"scene{scene}", f"drive_{scene}")
    for camera, name in zip("012", ("cam01", "cam05", "cam07")):
        text = text.replace(f"_{camera}.npz", f"_{name}.npz").replace(f'_{camera}"', f'_{name}"')
    (copy / "index.json").write_text(text)
    assert set(verdicts(check(copy / "index.json"))) == {"ok"}


def test_values_that_are_not_finite_are_null_in_the_manifest(copy):
    path = copy / "enc_distill.safetensors"
    arrays = load_file(path)
    arrays["student"][0, 0, 0, 0] = torch.nan
    arrays["loss"] = torch.tensor(torch.nan)
    arrays["grad_student"][0, 0, 0, 0] = torch.nan
    save_file(arrays, path)
    rewrite(copy / "meta.json", lambda c: c["cases"]["enc_distill"].update(loss=None))
    assert verdicts(check(path))["FAIL"] == 0

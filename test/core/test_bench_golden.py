# SPDX-License-Identifier: Apache-2.0
"""`occany bench golden`: green on the public sets and on others, red where a number is wrong.

Other sets come from a second, plain implementation (`plain_network`, `plain_geometry`) with other
dims, seeds, batches, numbers of frames and aspects.
"""

import json
import shutil

import golden_set as golden
import numpy as np
import pytest
import torch
from golden_geometry_writer import write_geometry_sets
from golden_writer import Spec, write_network_set
from safetensors.torch import load_file, save_file

from occany_core.bench.golden import report
from occany_core.bench.golden.checklist import Checklist
from occany_core.bench.golden.runner import plan, run
from occany_core.cli.main import main
from occany_core.errors import InputError
from occany_core.projection import nearest_points

pytestmark = golden.needs_reference
RELEASED = "released_config"

SPECS = {
    "two scenes, portrait": Spec(scenes=2, gen_sel=(0, 3, 7, 11)),
    "one frame, wide": Spec(
        tag="one", prefix="single_", frames=1, height=32, width=80, vpi=1, gen_sel=(0, 2)
    ),
    "five frames, no turned views": Spec(
        tag="5", prefix="", frames=5, height=32, width=32, rot=0, vpi=1, gen_sel=(1, 4),
        encoder=(24, 1, 3), decoder=(32, 3, 1), sam_size=48,
    ),
}  # fmt: skip


def public(tmp_path, folder, leave_out):
    """A folder with links to the files of a public set."""
    for path in (golden.REFERENCE / folder).iterdir():
        if not path.name.startswith(leave_out):
            (tmp_path / path.name).symlink_to(path)
    return tmp_path


def assert_green(stages):
    assert report.counts(stages)["ok"] == len(stages), report.overview(stages)


@pytest.fixture(scope="module")
def network_folder(tmp_path_factory):
    """One written set, for tests that damage copies of it."""
    folder = tmp_path_factory.mktemp("written")
    write_network_set(folder, SPECS["one frame, wide"])
    return folder


def damaged(folder, tmp_path, file, change):
    """A copy of a folder in which some arrays of one file were changed."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    arrays = load_file(copy / file)
    change(arrays)
    save_file(arrays, copy / file)
    return copy


# --- the public sets ----------------------------------------------------------------------------


@pytest.mark.parametrize(("folder", "fewest"), [("golden", 200), ("golden_inference", 250)])
def test_public_sets_are_green(tmp_path, folder, fewest):
    stages = run(public(tmp_path, folder, RELEASED))
    assert_green(stages)
    assert len(stages) >= fewest


@pytest.mark.slow
def test_the_released_configuration_is_green(tmp_path):
    for path in (golden.REFERENCE / "golden").glob(f"{RELEASED}*"):
        (tmp_path / path.name).symlink_to(path)
    shutil.copy(golden.REFERENCE / "golden" / "golden_weights.py", tmp_path)
    stages = run(tmp_path)
    assert_green(stages)
    assert len(stages) >= 20


# --- other sets ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPECS)
def test_sets_of_other_sizes_are_green(tmp_path, name):
    write_network_set(tmp_path, SPECS[name])
    stages = run(tmp_path)
    assert_green(stages)
    assert {s.file for s in stages} > {f"{SPECS[name].prefix}render.safetensors"}
    assert len(stages) >= 80


def test_geometry_of_other_cases_is_green(tmp_path):
    write_geometry_sets(tmp_path)
    stages = run(tmp_path)
    assert_green(stages)
    assert len(stages) >= 50


# --- wrong numbers ------------------------------------------------------------------------------

NETWORK_LEAVES = {
    "single_recon": """
        true_shape enc.patch enc.blk0 enc.tokens enc.pos step0.blk0 step0.blk0.self
        step0.blk1.cross step0.blk1.mlp step0.blk0.pose_inject step0.norm step0.feedback step0.raw
        step0.pose step0.sam256 step0.sam64 step0.sam32 step0.mem_new.1 step0.mem_labels
        render.blk1 render.norm single.pose single.mem.0 single.render_raw single.render_sam32
        post.rgb post.c2w_pose post.norm_exp.pts3d
    """,
    "single_render": """
        all_poses proj.index proj.cond10 proj.cond_sam_sel proj.resized_sam_sel gen.tokens_cat
        gen.x_ray gen.pos_ray gen.dec.blk1 gen.dec.norm gen.pose_head gen.sam256 gen.sam64
        gen.sam32 gen.post.conf gen.post.focal gen.post.c2w gen.post.pose_absT_quaR
    """,
    "single_eps": "enc.tokens step0.mem_new.1 render.norm render.sam32 x_ray_from_tokens_proj",
}


@pytest.mark.parametrize("file", NETWORK_LEAVES)
def test_one_wrong_value_in_any_array_is_found(network_folder, tmp_path, file):
    names = NETWORK_LEAVES[file].split()

    def change(arrays):
        for name in names:
            flat = arrays[name].view(-1)
            step = 1e-3 * float(flat.abs().max()) if flat.is_floating_point() else 1
            flat[len(flat) // 2] += step

    # One different pixel is within what rounding may do; more than that is not.
    def change_winners(arrays):
        change(arrays)
        if "proj.index" in arrays:
            arrays["proj.index"].view(-1)[::20] += 1

    stages = run(damaged(network_folder, tmp_path, f"{file}.safetensors", change_winners))
    failed = {s.name for s in stages if s.verdict == "FAIL" and s.file == f"{file}.safetensors"}
    assert failed >= set(names)


def test_a_few_pixels_may_flip_and_nothing_after_them_fails(network_folder, monkeypatch):
    """Where rounding makes another point win, the stages after it go on with the set's choice."""

    def flipped(*arguments):
        winner, points_cam = nearest_points(*arguments)
        row, column = (winner >= 0).nonzero()[5].tolist()
        winner[row, column] = winner.max()
        return winner, points_cam

    monkeypatch.setattr("occany_core.projection.nearest_points", flipped)
    monkeypatch.setattr("occany_core.bench.golden.rendering.nearest_points", flipped)
    stages = run(network_folder)
    assert_green(stages)
    assert [s.error for s in stages if s.name == "proj.index"] == [2.0]


def test_a_wrong_epsilon_shows(network_folder, monkeypatch):
    monkeypatch.setattr("occany_core.network.decoder.FEEDBACK_NORM_EPS", 1e-6)
    failed = {s.file for s in run(network_folder) if s.verdict == "FAIL"}
    assert failed == {"single_eps.safetensors"}


GEOMETRY_LEAVES = {
    "geometry": "clean.focal upright.c2w noisy.rgb noisy.conf clean.c2w_pose affine_inverse.out "
    "noisy.norm_exp.pts3d noisy.post_pose_absT_quaR rope.out raymap.out",
    "poses_zbuffer": "posegen.line.poses posegen.seeds.poses zbuffer.local_xyz",
}


@pytest.mark.parametrize("file", GEOMETRY_LEAVES)
def test_wrong_geometry_is_found(tmp_path, file):
    write_geometry_sets(tmp_path / "good")
    names = GEOMETRY_LEAVES[file].split()

    def change(arrays):
        for name in names:
            arrays[name].view(-1)[-1] += 0.01 * max(1, float(arrays[name].abs().max()))

    stages = run(damaged(tmp_path / "good", tmp_path, f"{file}.safetensors", change))
    assert {s.name for s in stages if s.verdict == "FAIL"} == set(names)


def test_wrong_novel_poses_and_owners_are_found(tmp_path):
    write_geometry_sets(tmp_path)
    path = tmp_path / "ttva_poses.npz"
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    arrays["seeds/gen_c2w"][0, 3, 0, 3] += 0.001
    arrays["sides/owner"][2] += 1
    arrays["sides/semantic_view_ids_nsr"] = arrays["sides/semantic_view_ids_nsr"][:-1]
    np.savez(path, **arrays)
    manifest = json.loads((tmp_path / "misc_manifest.json").read_text())
    manifest["posegen"]["sides"]["recon_2_gen"]["1"][0] += 1
    (tmp_path / "misc_manifest.json").write_text(json.dumps(manifest))
    assert {s.name for s in run(tmp_path) if s.verdict == "FAIL"} == {
        "seeds/gen_c2w",
        "sides/owner",
        "sides/semantic_view_ids_nsr",
        "posegen.sides recon_2_gen",
    }


def test_another_generator_of_weights_is_found(network_folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(network_folder, copy)
    probe = golden.REFERENCE / "golden" / "format_probe_recon_legacy.pth"
    shutil.copy(probe, copy)
    program = copy / "golden_weights.py"
    program.write_text(program.read_text().replace("np.float32(0.1)", "np.float32(0.10001)"))
    failed = {(s.file, s.name) for s in run(copy) if s.verdict == "FAIL"}
    assert ("golden_weights.py", "checksums of one/raymap_encoder") in failed
    assert any(file == probe.name for file, _ in failed)


def test_arrays_that_the_manifest_lists_must_be_there(network_folder, tmp_path):
    def change(arrays):
        del arrays["single.pose"]
        arrays["enc.pos"] = arrays["enc.pos"].to(torch.int64)

    stages = run(damaged(network_folder, tmp_path, "single_recon.safetensors", change))
    (failed,) = [s for s in stages if s.verdict == "FAIL"]
    assert failed.name == "arrays in the manifest"
    assert "single.pose" in failed.reason
    assert "enc.pos" in failed.reason


# --- folders ------------------------------------------------------------------------------------


def test_nothing_recognised_is_an_error_that_names_the_folder(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    np.savez(tmp_path / "numbers.npz", a=np.zeros(3))
    with pytest.raises(InputError, match=f"nothing in {tmp_path}"):
        plan(tmp_path)
    with pytest.raises(InputError, match="cannot read the folder"):
        run(tmp_path / "missing")


def test_files_without_a_check_and_arrays_nobody_knows_are_counted(tmp_path):
    write_geometry_sets(tmp_path)
    np.savez(tmp_path / "numbers.npz", a=np.zeros(3))
    arrays = load_file(tmp_path / "poses_zbuffer.safetensors")
    save_file(arrays | {"extra": torch.zeros(2)}, tmp_path / "poses_zbuffer.safetensors")
    left = {(s.file, s.name) for s in run(tmp_path) if s.verdict == "not checked"}
    assert left == {("numbers.npz", "all"), ("poses_zbuffer.safetensors", "extra")}


def test_damaged_files_and_missing_programs_are_failed_stages(network_folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(network_folder, copy)
    write_geometry_sets(copy)
    (copy / "golden_weights.py").unlink()
    geometry = copy / "geometry.safetensors"
    geometry.write_bytes(geometry.read_bytes()[:1000])
    seen = []
    stages = run(copy, lambda name, done, total: seen.append((name, done, total)))
    reasons = {s.file: s.reason for s in stages if s.verdict == "FAIL"}
    assert "golden_weights.py, cannot be read" in reasons["single_recon.safetensors"]
    assert "cannot be read" in reasons["geometry.safetensors"]
    assert {"poses_zbuffer.safetensors", "ttva_poses.npz"}.isdisjoint(reasons)
    assert [done for _, done, _ in seen] == list(range(4))
    assert {total for *_, total in seen} == {4}


# --- comparing ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [
        ([1.0, float("nan"), float("inf")], "ok"),
        ([1.0, 2.0, float("inf")], "FAIL"),
        ([float("nan"), float("nan"), float("inf")], "FAIL"),
        ([1.0, float("nan"), -float("inf")], "FAIL"),
        ([1.0, float("nan")], "FAIL"),
        ([1.00001, float("nan"), float("inf")], "ok"),
        ([1.0001, float("nan"), float("inf")], "FAIL"),
    ],
)
def test_numbers_that_are_none(ours, verdict):
    arrays = {"a": torch.tensor([1.0, float("nan"), float("inf")])}
    checklist = Checklist("file", arrays, {"a": [2.5e-6, 1.0]})
    checklist.within("a", torch.tensor(ours))
    assert [stage.verdict for stage in checklist.report()] == [verdict]


# --- the command line ---------------------------------------------------------------------------


def test_command_line_shows_files_stages_and_json(tmp_path, capsys):
    write_geometry_sets(tmp_path)
    assert main(["bench", "golden", str(tmp_path), "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 10
    summary = json.loads(lines[-1])
    assert summary["FAIL"] == summary["not checked"] == 0
    assert summary["ok"] == len(summary["stages"])
    assert f"{summary['ok']} ok, 0 FAIL, 0 not checked" in lines
    assert main(["bench", "golden", str(tmp_path), "--verbose"]) == 0
    verbose = capsys.readouterr()
    assert len(verbose.out.splitlines()) == summary["ok"] + 2
    assert "checks done" in verbose.err


def test_command_line_fails_and_names_the_stage(tmp_path, capsys):
    write_geometry_sets(tmp_path / "good")

    def change(arrays):
        arrays["clean.conf"][0, 1, 2, 3] += 0.01

    copy = damaged(tmp_path / "good", tmp_path, "geometry.safetensors", change)
    assert main(["bench", "golden", str(copy), "--json"]) == 1
    shown = capsys.readouterr()
    (line,) = [
        line for line in shown.out.splitlines() if "FAIL " in f"{line} " and "clean" in line
    ]
    assert "geometry.safetensors: clean.conf" in line
    assert json.loads(shown.out.splitlines()[-1])["FAIL"] == 1
    assert "1 of " in shown.err


def test_command_line_refuses_a_folder_without_a_set(tmp_path, capsys):
    assert main(["bench", "golden", str(tmp_path)]) == 1
    assert "nothing in" in capsys.readouterr().err

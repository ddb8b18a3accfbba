# SPDX-License-Identifier: Apache-2.0
"""`occany download` up to the call of the hub, which is replaced by a stand-in."""

import fnmatch
import hashlib
import inspect
import io
import sys
import types
from pathlib import Path

import pytest

from occany_core.checkpoints.published_files import RELEASES, REPOSITORY
from occany_core.checkpoints.published_folders import THIRD_PARTY
from occany_core.cli.main import main
from occany_core.config import from_flat

CONTENT = b"weights"


class Hub(types.ModuleType):
    """The two functions of huggingface_hub that are called."""

    def __init__(self):
        super().__init__("huggingface_hub")
        self.calls = []
        self.failure = None
        self.files = ["config.json", "model.safetensors", "vocab.txt", "pytorch_model.bin"]

    def hf_hub_download(self, *, repo_id, filename, local_dir):
        self.calls.append((repo_id, filename, local_dir))
        if self.failure is not None:
            raise self.failure
        path = Path(local_dir) / filename
        path.write_bytes(CONTENT)
        return str(path)

    def snapshot_download(self, *, repo_id, allow_patterns, local_dir):
        self.calls.append((repo_id, local_dir))
        if self.failure is not None:
            raise self.failure
        for name in self.files:
            if any(fnmatch.fnmatch(name, pattern) for pattern in allow_patterns):
                (Path(local_dir) / name).write_bytes(CONTENT)
        return local_dir


@pytest.fixture
def hub(monkeypatch):
    hub = Hub()
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    return hub


class Terminal(io.StringIO):
    def isatty(self):
        return True


def download(folder, *more, name="occany"):
    return main(["download", name, "--to", str(folder), *more])


@pytest.mark.parametrize("name", RELEASES)
def test_a_release_is_fetched_once_its_licence_is_accepted(hub, tmp_path, capsys, name):
    folder = tmp_path / "new" / "weights"
    assert download(folder, "--accept-licence", name=name) == 0
    assert hub.calls == [(REPOSITORY, f"{name}.pth", str(folder))]
    out, err = capsys.readouterr()
    assert RELEASES[name].licence in err
    assert str(folder / f"{name}.pth") in out
    assert ("occany convert" in out) == (name in ("occany", "occany_recon"))


def test_another_repository(hub, tmp_path):
    assert download(tmp_path, "--accept-licence", "--repository", "someone/else") == 0
    assert hub.calls[0][0] == "someone/else"


def test_unknown_names_are_refused(hub, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        download(tmp_path, "--accept-licence", name="resnet")
    assert ended.value.code == 2
    assert "occany_plus_recon_1B" in capsys.readouterr().err
    assert hub.calls == []


@pytest.mark.parametrize(("answer", "code"), [("yes\n", 0), ("YES \n", 0), ("no\n", 1), ("", 1)])
def test_a_terminal_is_asked(hub, tmp_path, monkeypatch, capsys, answer, code):
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    assert download(tmp_path) == code
    assert len(hub.calls) == 1 - code
    assert "non-commercial" in capsys.readouterr().err


def test_without_a_terminal_the_option_is_named(hub, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("yes\n"))
    assert download(tmp_path) == 1
    assert hub.calls == []
    assert "--accept-licence" in capsys.readouterr().err.splitlines()[-1]


def by_hand(capsys, folder):
    """The one sentence says what to fetch, from where, into which folder, and what then."""
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("occany: ")
    path = folder / "occany.pth"
    for part in ("get occany.pth from", REPOSITORY, "github.com", f"into {folder}"):
        assert part in last
    assert f"occany convert {path}" in last
    assert "Traceback" not in last
    return last


@pytest.mark.parametrize(
    "failure",
    [OSError("Network is unreachable"), ValueError("404: no such repository"), RuntimeError()],
)
def test_what_cannot_be_fetched_can_be_fetched_by_hand(hub, tmp_path, capsys, failure):
    hub.failure = failure
    assert download(tmp_path, "--accept-licence") == 1
    assert (str(failure) or "RuntimeError") in by_hand(capsys, tmp_path)


def test_without_the_library_the_extra_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert download(tmp_path, "--accept-licence") == 1
    assert "pip install 'occany_ros[download]'" in by_hand(capsys, tmp_path)


def test_an_interrupted_download_is_left_for_the_library_to_resume(hub, tmp_path):
    hub.failure = KeyboardInterrupt()
    (tmp_path / "occany.pth.incomplete").write_bytes(b"wei")
    assert download(tmp_path, "--accept-licence") == 130
    assert (tmp_path / "occany.pth.incomplete").exists()
    hub.failure = None
    assert download(tmp_path, "--accept-licence") == 0


def test_the_checksum_of_a_download(hub, tmp_path, capsys):
    right = hashlib.sha256(CONTENT).hexdigest()
    assert download(tmp_path, "--accept-licence", "--sha256", right) == 0
    wrong = hashlib.sha256(b"other").hexdigest()
    assert download(tmp_path, "--accept-licence", "--sha256", wrong) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"{tmp_path / 'occany.pth'} has sha256 {right[:12]}" in last


@pytest.mark.parametrize("name", THIRD_PARTY)
def test_a_model_of_others_is_fetched_into_a_folder_of_its_name(hub, tmp_path, capsys, name):
    assert download(tmp_path / "weights", "--accept-licence", name=name) == 0
    model, folder = THIRD_PARTY[name], tmp_path / "weights" / name
    assert hub.calls == [(model.repository, str(folder))]
    assert {path.name for path in folder.iterdir()} == set(hub.files) - {"pytorch_model.bin"}
    out, err = capsys.readouterr()
    assert f"licence: {model.licence}" in err
    size, following = out.splitlines()
    assert size == f"{folder}: 0.00 GB"
    settings = {"labels.pipeline": model.pipeline, model.setting: str(folder)}
    options = " ".join(f"--set {name}={value}" for name, value in settings.items())
    assert following == f'next: occany predict PICTURES --labels "car, tree" {options} -o out'
    config = from_flat(settings)
    assert getattr(config.labels, model.setting.removeprefix("labels.")) == str(folder)


def test_licences_of_models_of_others_are_told_apart(capsys, hub, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    for name, words in (
        ("sam2.1-hiera-large", "Apache-2.0 (Meta"),
        ("grounding-dino-base", "Apache-2.0 (IDEA"),
        ("sam3", "Meta's own licence"),
    ):
        assert download(tmp_path, name=name) == 1
        assert words in capsys.readouterr().err
    assert hub.calls == []


def test_a_folder_that_cannot_be_fetched_can_be_fetched_by_hand(hub, tmp_path, capsys):
    hub.failure = OSError("Network is unreachable")
    assert download(tmp_path, "--accept-licence", name="grounding-dino-base") == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    folder = tmp_path / "grounding-dino-base"
    for part in (
        "Network is unreachable",
        "https://huggingface.co/IDEA-Research/grounding-dino-base",
        f"put them into {folder}",
        f"--set labels.detector={folder}",
    ):
        assert part in last
    assert "hf auth login" not in last


class GatedRepoError(OSError):
    """As huggingface_hub names it."""


def answered(status):
    error = OSError("no")
    error.response = types.SimpleNamespace(status_code=status)
    return error


def wrapped(error):
    outer = OSError("nothing is cached")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    ("failure", "refused"),
    [
        (GatedRepoError("Access to model facebook/sam3 is restricted"), True),
        (wrapped(GatedRepoError()), True),
        (answered(401), True),
        (answered(403), True),
        (answered(404), False),
    ],
)
def test_refused_access_is_explained(hub, tmp_path, capsys, failure, refused):
    hub.failure = failure
    assert download(tmp_path, "--accept-licence", name="sam3") == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert ("`hf auth login`" in last) == refused
    assert "https://huggingface.co/facebook/sam3" in last


def test_a_repository_without_a_model_is_refused(hub, tmp_path, capsys):
    hub.files = ["config.json", "pytorch_model.bin"]
    assert download(tmp_path, "--accept-licence", name="sam2.1-hiera-tiny") == 1
    assert "holds no model for transformers" in capsys.readouterr().err


def test_a_checksum_is_for_one_file(hub, tmp_path, capsys):
    assert download(tmp_path, "--accept-licence", "--sha256", "00", name="sam3") == 1
    assert "--sha256 is for one file" in capsys.readouterr().err
    assert hub.calls == []


def test_the_real_hub_takes_what_it_is_given():
    """Says what changed when a new release of huggingface_hub breaks downloads."""
    real = pytest.importorskip("huggingface_hub")
    errors = pytest.importorskip("huggingface_hub.errors")
    for function, wanted in (
        (real.hf_hub_download, {"repo_id", "filename", "local_dir"}),
        (real.snapshot_download, {"repo_id", "allow_patterns", "local_dir"}),
    ):
        missing = wanted - set(inspect.signature(function).parameters)
        assert not missing, f"{function.__name__} does not take {missing} any more"
    assert errors.GatedRepoError.__name__ == GatedRepoError.__name__

# SPDX-License-Identifier: Apache-2.0
"""What the documents tell people to type works, and their tables are what the code says.

`OCCANY_RENEW=1 dev/run test test/test_examples.py` writes the tables anew, as
`python -m occany_ros.interface_files` does.
"""

import os
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
from small_model import save_small_model, write_pictures

from occany_core.cli.main import VERBS, build_parser
from occany_core.results import load_scene
from occany_ros import interface_files

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").rglob("*.md"))]


def code_blocks(path, language):
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)
    return [text for name, text in blocks if name == language]


def commands(path):
    """Lines of code blocks without a language."""
    return [line for block in code_blocks(path, "") for line in block.splitlines() if line.strip()]


OCCANY = [(p, c) for p in DOCUMENTS for c in commands(p) if c.startswith("occany ")]
OCCANY += [(p, c) for p in DOCUMENTS for c in re.findall(r"`(occany \w[^`]*)`", p.read_text())]


@pytest.mark.parametrize(("path", "command"), OCCANY)
def test_occany_commands_are_understood(path, command):
    words = shlex.split(command)[1:]
    assert words[0] in {verb.NAME for verb in VERBS}, f"{path.name}: {command}"
    if len(words) > 1 and not {"FILE", "..."} & set(words):
        build_parser().parse_args(words)


def test_enough_commands_are_found():
    assert len(OCCANY) >= 8


def test_documents_name_files_that_exist():
    for path in DOCUMENTS:
        text = path.read_text()
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"
        folders = "occany_core|occany_ros|launch|config|msg|docs|examples|recordings|test|dev"
        for name in re.findall(rf"`((?:{folders})/[a-z_][\w./-]*)`", text):
            assert (ROOT / name).exists(), f"{path.name} names {name}"


def test_launch_lines_use_files_and_arguments_that_exist():
    declared = (ROOT / "launch/occany.launch.py").read_text()
    lines = [c for p in DOCUMENTS for c in commands(p) if c.startswith("ros2 launch occany_ros ")]
    assert lines
    for line in lines:
        _, _, _, file, *arguments = line.split()
        assert (ROOT / "launch" / file).exists()
        for argument in arguments:
            assert f'"{argument.split(":=")[0]}"' in declared, line


def test_dev_run_lines_use_its_verbs():
    verbs = {"demo", "test", "exec"}
    used = {v for p in DOCUMENTS for v in re.findall(r"dev/run (\w+)", p.read_text())}
    assert used
    assert used <= verbs
    assert all(
        f"run_{verb}" in (ROOT / "dev/run").read_text() for verb in verbs - {"exec", "test"}
    )


def test_python_of_the_readme_runs(tmp_path, capsys):
    (code,) = code_blocks(ROOT / "README.md", "python")
    assert len([line for line in code.splitlines() if line and "import" not in line]) <= 5
    code = code.replace('"default"', repr(str(save_small_model(tmp_path))))
    code = code.replace("recordings/", f"{ROOT}/recordings/")
    exec(compile(code, "README.md", "exec"), {})
    assert "[" in capsys.readouterr().out


def test_example_program_runs(tmp_path, capsys, monkeypatch):
    program = ROOT / "examples" / "predict_images.py"
    assert len(program.read_text().splitlines()) <= 40
    names = ["a.jpg", "b.jpg"]
    pictures = write_pictures(tmp_path / "pictures", 2, names)
    weights = save_small_model(tmp_path)
    arguments = [str(pictures), str(tmp_path / "out"), "--model", str(weights)]
    monkeypatch.setattr(sys, "argv", [str(program), *arguments])
    runpy.run_path(str(program), run_name="__main__")
    assert "occupied cells" in capsys.readouterr().out
    assert load_scene(tmp_path / "out").captions == tuple(names)


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


# --- tables -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", interface_files.contents(), ids=str)
def test_files_written_from_tables_are_up_to_date(path):
    wanted = interface_files.contents()[path]
    if os.environ.get("OCCANY_RENEW"):
        (ROOT / path).write_text(wanted)
    assert (ROOT / path).read_text() == wanted, f"{path} is old; OCCANY_RENEW=1 renews it"

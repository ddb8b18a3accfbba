# SPDX-License-Identifier: Apache-2.0
"""The rules of the tree, as data: who may import whom, names, sizes, and facts that stand once.

A rule without a test is a wish. A new module of occany_core gets a line in `ALLOWED`.
"""

import ast
import importlib.metadata
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]

TOP_LEVEL = """
    occany_ros occany_core launch config msg srv test
    package.xml setup.py CMakeLists.txt pyproject.toml
    rviz docs recordings dev/run .ci/run
    LICENSE NOTICE README.md ARCHITECTURE.md CONTRIBUTING.md CHANGELOG.rst
""".split()

# --- who may import whom ------------------------------------------------------------------------

LEAVES = {"errors", "config", "rigid", "camera", "view_checks"}
GEOMETRY = LEAVES | {"pointmaps", "poses", "novel_views", "projection", "voxels", "rig_poses"}
CHAIN = GEOMETRY | {"images", "calibrated_images", "calibration", "network", "checkpoints"}
CHAIN |= {"scale", "location"}
STEPS = CHAIN | {"grid_frame", "datasets", "semantics", "observation", "stopwatch"}
LIBRARY = STEPS | {"pipeline", "view_rendering", "view_features", "odometry", "stream"}
LIBRARY |= {"grid_fields", "grid_codec"}

ALLOWED = {  # part of occany_core: the parts it may import, besides itself
    "__init__": LIBRARY,
    "errors": set(),
    "config": {"errors"},
    "rigid": {"errors"},
    "stopwatch": set(),
    "camera": {"errors", "rigid"},
    "view_checks": {"errors"},  # and no PyTorch: the demo's player reads calibration files
    "images": LEAVES,
    "calibrated_images": LEAVES | {"images"},
    "network": {"errors", "camera", "rigid"},  # knows tensors; no files, no grids
    "checkpoints": {"errors", "config", "network"},
    "pointmaps": LEAVES | {"network"},  # only the type of what the network returns, see below
    "poses": LEAVES | {"pointmaps"},
    "calibration": LEAVES | {"images", "network", "poses"},
    "novel_views": LEAVES | {"pointmaps", "poses"},
    "projection": LEAVES,
    "voxels": LEAVES | {"pointmaps", "poses"},
    "rig_poses": LEAVES | {"pointmaps"},
    "scale": LEAVES | {"images", "rig_poses"},
    "location": GEOMETRY | {"images", "network", "scale"},
    "grid_fields": {"errors"},
    "grid_codec": {"errors", "grid_fields"},
    "grid_frame": LEAVES | {"pointmaps", "poses", "voxels"},
    "observation": CHAIN | {"semantics", "stopwatch"},
    "pipeline": STEPS,
    "view_rendering": STEPS | {"pipeline"},
    "view_features": STEPS,
    "odometry": LEAVES,
    "stream": STEPS | {"pipeline", "odometry"},
    "synthetic": {"errors", "config", "rigid", "camera"},
    "training": CHAIN | {"synthetic", "datasets", "semantics"},
    "datasets": LEAVES | {"images"},
    "semantics": CHAIN | {"datasets"},
    "evaluation": LIBRARY | {"synthetic", "datasets", "semantics"},
    "bench": LIBRARY | {"synthetic", "datasets", "semantics", "evaluation", "training"},
    "picture": LIBRARY,
    "results": LIBRARY | {"picture"},
    "live_view": LIBRARY | {"picture", "results"},
    "cli": LIBRARY
    | {"__init__", "synthetic", "training", "evaluation", "picture", "results", "bench"}
    | {"live_view"},
}
ONLY_THESE_NAMES = {(part, "network"): {"RawMaps"} for part in ("pointmaps", "location")}

# Inside network/: each may import those before it.
NETWORK_ORDER = """
    config precision rope memory convolutions attention point_activation known_cameras encoder
    decoder point_heads heads novel_view_encoder prompt_decoder occany __init__
""".split()

CORE_PACKAGES = {"torch", "numpy", "yaml", "safetensors", "jaxtyping", "PIL"}
ROS_PACKAGES = """
    rclpy rcl_interfaces ament_index_python std_msgs std_srvs geometry_msgs sensor_msgs nav_msgs
    diagnostic_msgs lifecycle_msgs rosgraph_msgs builtin_interfaces tf2_msgs tf2_ros cv_bridge
    message_filters sensor_msgs_py launch launch_ros occany_ros
""".split()
OPTIONAL_PACKAGES = """
    transformers rosbags rerun tensorboard pyarrow fsspec huggingface_hub
    scipy cv2 pandas
""".split()

# What the node decides is plain Python that can be tested without ROS.
WITHOUT_ROS = (
    *("synchroniser", "worker", "cycle_times", "declarations", "node_settings"),
    *("sync_rules", "height_bands", "grid_boxes", "scene_files", "interface", "interface_files"),
    *("budget", "label_colours", "declaration", "background_looks"),
)
# Packages that only a full ROS 2 has: one module serves both kinds of machine.
ADAPTERS = {
    "cv_bridge": "image_messages",
    "tf2_ros": "transforms",
    "message_filters": "synchroniser",
    "ament_index_python": "share",
    "rosbags": "bags",
}

# --- names and sizes ----------------------------------------------------------------------------

BANNED_WORDS = "utils util helpers helper common misc base manager factory registry".split()
UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|NotImplemented" + r"Error)\b")
MACHINE_PATH = re.compile(r"(^|[^A-Za-z0-9_.\-}])/(wo" + r"rk|tm" + r"p|ro" + r"ot|ho" + r"me)/")
MOST_LINES_OF_A_MODULE = 400
MOST_LINES_OF_A_FUNCTION = 75


def tracked_files():
    """What git tracks; in an unpacked archive, everything outside hidden and build folders."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode == 0 and listing.stdout:
        paths = [ROOT / name for name in listing.stdout.split("\0") if name]
    else:
        paths = [p for name in TOP_LEVEL for p in [ROOT / name, *(ROOT / name).rglob("*")]]
        paths = [
            p
            for p in paths
            if "__pycache__" not in p.parts and p.parent.name not in ("msg", "srv")
        ]
    return [path for path in paths if path.is_file()]


TRACKED = tracked_files()
PYTHON = [path for path in TRACKED if path.suffix == ".py"]
LIBRARY_FILES = [
    p for p in PYTHON if p.relative_to(ROOT).parts[0] in ("occany_core", "occany_ros")
]


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path, *, top_level_only=False):
    """(module, imported name or None, node) of each import statement."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, None, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports with the full package name"
            yield from ((node.module, alias.name, node) for alias in node.names)


def core_part(module, name):
    """The part of occany_core that an import reaches, or None for other packages."""
    first, *rest = module.split(".")
    if first != "occany_core":
        return None
    return rest[0] if rest else name if name in ALLOWED else "__init__"


def part_of(path):
    return path.relative_to(ROOT / "occany_core").with_suffix("").parts[0]


CORE_FILES = [path for path in LIBRARY_FILES if path.is_relative_to(ROOT / "occany_core")]
ROS_FILES = [path for path in LIBRARY_FILES if path.is_relative_to(ROOT / "occany_ros")]


def test_core_imports_point_one_way():
    for path in CORE_FILES:
        part = part_of(path)
        assert part in ALLOWED, f"say in ALLOWED what occany_core/{part} may import"
        for module, name, _ in imports(path):
            target = core_part(module, name)
            if target in (None, part):
                continue
            assert target in ALLOWED[part], f"{module_name(path)} must not import {module}"
            names = ONLY_THESE_NAMES.get((part, target))
            assert names is None or name in names, f"{module_name(path)} imports {module}.{name}"


def test_network_modules_import_only_earlier_ones():
    for path in (ROOT / "occany_core/network").glob("*.py"):
        assert path.stem in NETWORK_ORDER, f"say in NETWORK_ORDER where {path.stem} stands"
        before = NETWORK_ORDER[: NETWORK_ORDER.index(path.stem)]
        for module, _, _ in imports(path):
            if module.startswith("occany_core.network."):
                assert module.split(".")[2] in before, f"{path.stem} must not import {module}"


def test_core_uses_its_few_packages_only():
    own = {*CORE_PACKAGES, "occany_core", *sys.stdlib_module_names}
    for path in CORE_FILES:
        for module, _, _ in imports(path, top_level_only=True):
            assert module.split(".")[0] in own, f"{module_name(path)} imports {module}"
        for module, _, _ in imports(path):
            package = module.split(".")[0]
            assert package not in ROS_PACKAGES, f"{module_name(path)} must not know {module}"
            assert package in own or package in OPTIONAL_PACKAGES, f"{path}: {module}"


def test_what_the_node_decides_is_free_of_ros():
    for name in WITHOUT_ROS:
        for module, _, _ in imports(ROOT / f"occany_ros/{name}.py"):
            package = module.split(".")[0]
            assert package not in ROS_PACKAGES or package == "occany_ros", f"{name}: {module}"
            built = module.startswith(("occany_ros.msg", "occany_ros.srv"))
            assert not built, f"{name}: {module}"


def test_ecosystem_packages_have_one_adapter_each():
    for path in ROS_FILES:
        for module, _, _ in imports(path):
            adapter = ADAPTERS.get(module.split(".")[0])
            assert adapter in (None, path.stem), f"{path.stem} imports {module}; {adapter} does"
        tree = ast.parse(path.read_text())
        for block in (node for node in ast.walk(tree) if isinstance(node, ast.Try)):
            tried = any(isinstance(node, ast.Import | ast.ImportFrom) for node in block.body)
            assert not tried or path.stem in ADAPTERS.values(), f"{path}: `try: import`"


def test_core_imports_on_a_machine_without_ros_and_optional_packages():
    blocked = [*ROS_PACKAGES, *OPTIONAL_PACKAGES]
    program = f"""
import importlib, pkgutil, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError(f"{{name}} is not on this machine")

sys.meta_path.insert(0, Blocked())
import occany_core
for module in pkgutil.walk_packages(occany_core.__path__, "occany_core."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(occany_core.__version__)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == version()


# --- facts that stand once ----------------------------------------------------------------------


def version():
    return ElementTree.parse(ROOT / "package.xml").getroot().findtext("version")


def test_version_is_the_same_everywhere():
    import occany_core

    assert re.fullmatch(r"\d+\.\d+\.\d+", version())
    assert occany_core.__version__ == version()
    assert importlib.metadata.version("occany_ros") == version()
    newest = re.search(r"^(\d+\.\d+\.\d+) \(", (ROOT / "CHANGELOG.rst").read_text(), re.MULTILINE)
    assert newest.group(1) == version()


def executables():
    lines = (ROOT / "cmake/executables.txt").read_text().splitlines()
    return dict(line.split() for line in lines if line.strip() and not line.startswith("#"))


def has_main(module):
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
    return any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body)


def test_executables_exist_and_launch_files_use_no_others():
    assert all(has_main(module) for module in executables().values())
    assert has_main("occany_core.cli.main")
    for path in (ROOT / "launch").glob("*.py"):
        used = re.findall(r'package="occany_ros",\s+executable="(\w+)"', path.read_text())
        assert set(used) <= set(executables()), path.name


def test_build_files_name_the_same_messages_and_folders():
    cmake = (ROOT / "CMakeLists.txt").read_text()
    for kind in ("msg", "srv"):
        named = set(re.findall(rf'"{kind}/(\w+)\.{kind}"', cmake))
        assert named
        assert named == {path.stem for path in (ROOT / kind).glob(f"*.{kind}")}
    installed = re.search(r"install\(DIRECTORY ([a-z ]+) DESTINATION", cmake).group(1).split()
    assert re.search(r"ROS_SOURCES = \((.*)\)", (ROOT / "setup.py").read_text()).group(1) == (
        ", ".join(f'"{name}"' for name in ["msg", "srv", "cmake", *installed])
    )
    step = re.search(
        r"package\.xml CMakeLists\.txt (.*) -- install", (ROOT / "dev/run").read_text()
    )
    assert set(step.group(1).split()) == {"msg", "srv", "cmake", *installed}


def setup_keywords():
    """The arguments of setup() in setup.py, as syntax trees."""
    call = ast.parse((ROOT / "setup.py").read_text()).body[-1].value
    return {keyword.arg: keyword.value for keyword in call.keywords}


def test_packages_and_their_data_are_installed():
    patterns = ast.literal_eval(setup_keywords()["package_data"])["occany_core"]
    for path in TRACKED:
        if not path.is_relative_to(ROOT / "occany_core"):
            continue
        assert path.suffix != ".py" or (path.parent / "__init__.py").exists(), path.parent
        inside = path.relative_to(ROOT / "occany_core")
        covered = path.suffix == ".py" or any(inside.match(pattern) for pattern in patterns)
        assert covered, f"add {inside} to package_data in setup.py"


def test_dependencies_are_documented():
    text = (ROOT / "docs/dependencies.md").read_text()
    keywords = setup_keywords()
    names = ast.literal_eval(keywords["install_requires"])
    extras = keywords["extras_require"]
    for key, value in zip(extras.keys, extras.values, strict=True):
        assert f"`[{key.value}]`" in text
        names += ast.literal_eval(value) if isinstance(value, ast.List) else []
    for name in names:
        package = re.split(r"[<>=\[]", name)[0]
        assert f"`{package}`" in text, f"docs/dependencies.md gives no reason for {package}"


# --- files --------------------------------------------------------------------------------------


def test_required_files_are_there():
    assert [name for name in TOP_LEVEL if not (ROOT / name).exists()] == []


def test_names_say_what_things_are():
    for path in LIBRARY_FILES:
        words = {word for part in path.relative_to(ROOT).parts for word in re.split(r"[_.]", part)}
        assert not words & set(BANNED_WORDS), path
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                words = set(re.findall(r"[A-Z][a-z]+", node.name))
                assert not words & {word.title() for word in BANNED_WORDS}, f"{path}: {node.name}"


def test_modules_and_functions_are_small():
    for path in LIBRARY_FILES:
        lines = len(path.read_text().splitlines())
        assert lines <= MOST_LINES_OF_A_MODULE, f"{path}: {lines} lines; split it by concept"
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                length = node.end_lineno - node.lineno + 1
                assert length <= MOST_LINES_OF_A_FUNCTION, f"{path}: {node.name}: {length} lines"


def test_python_files_name_their_licence():
    scripts = [ROOT / "dev/run", ROOT / ".ci/run"]
    for path in [*PYTHON, *scripts]:
        first_lines = path.read_text().splitlines()[:2]
        assert "# SPDX-License-Identifier: Apache-2.0" in first_lines, path


def test_library_is_finished_and_documented():
    for path in LIBRARY_FILES:
        text = path.read_text()
        assert not UNFINISHED.search(text), path
        assert ast.get_docstring(ast.parse(text)), f"{path} has no module docstring"
        if path.is_relative_to(ROOT / "occany_core"):
            assert "from __future__ import annotations" not in text, path


def test_no_paths_of_a_machine():
    for path in TRACKED:
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            assert not MACHINE_PATH.search(line), f"{path}:{number}: {line.strip()[:80]}"


def test_xml_is_well_formed():
    files = [path for path in TRACKED if path.suffix == ".xml"]
    assert len(files) >= 3
    for path in files:
        ElementTree.parse(path)


def test_package_xml_is_a_ros_manifest():
    """A broken one makes colcon fall back to a plain Python build without a word."""
    package = ElementTree.parse(ROOT / "package.xml").getroot()
    assert package.tag == "package"
    assert package.get("format") == "3"
    for tag, text in (
        ("name", "occany_ros"),
        ("license", "Apache-2.0"),
        ("member_of_group", "rosidl_interface_packages"),
        ("export/build_type", "ament_cmake"),
    ):
        assert package.findtext(tag) == text
    depends = [f"{e.tag} {e.text}" for e in package if e.tag.endswith("depend")]
    assert len(depends) == len(set(depends))
    needed = re.findall(r"find_package\((\w+_msgs) ", (ROOT / "CMakeLists.txt").read_text())
    assert {f"depend {name}" for name in needed} <= set(depends)


def test_package_xml_passes_the_ros_parser():
    parser = pytest.importorskip("catkin_pkg.package", reason="catkin_pkg comes with ROS 2")
    warnings = []
    package = parser.parse_package(str(ROOT / "package.xml"), warnings=warnings)
    assert package.get_build_type() == "ament_cmake"
    assert warnings == []


def test_shared_memory_profile_fits_its_segment():
    """Fast DDS silently falls back to UDP when messages may be larger than the segment."""
    namespace = "{http://www.eprosima.com}"
    profile = ElementTree.parse(ROOT / "config/fastdds.xml")
    sizes = {
        tag: int(profile.find(f".//{namespace}{tag}").text)
        for tag in ("segment_size", "maxMessageSize")
    }
    assert sizes["segment_size"] >= 6 * 1600 * 900 * 3
    assert sizes["maxMessageSize"] <= sizes["segment_size"]


def test_parameter_files_are_ros_parameter_files():
    files = sorted((ROOT / "config").glob("*.yaml"))
    assert files
    for path in files:
        for node, content in yaml.safe_load(path.read_text()).items():
            assert isinstance(node, str)
            assert isinstance(content["ros__parameters"], dict), path


def test_tools_agree_on_the_style():
    text = (ROOT / "pyproject.toml").read_text()
    for setting in ("line-length = 99", 'quote-style = "double"', 'testpaths = ["test"]'):
        assert setting in text

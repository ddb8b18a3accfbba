# SPDX-License-Identifier: Apache-2.0
"""The pip build. A colcon workspace uses CMakeLists.txt and ignores this file.

`pip install .` always installs occany_core and occany_ros. Where the ROS 2 message generators are
found (a sourced ROS 2, or the ros-* wheels in the same environment) it also runs CMakeLists.txt,
so that occany_ros.msg, occany_ros.srv and the ROS side (share/, lib/occany_ros/, ament index) are
installed too.
"""

import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from setuptools import Command, Distribution, find_packages, setup
from setuptools.command.build import build

ROOT = Path(__file__).resolve().parent
ROS_SOURCES = ("msg", "srv", "cmake", "launch", "config", "rviz", "recordings")


def version() -> str:
    """The version in package.xml, its single home."""
    return ElementTree.parse(ROOT / "package.xml").getroot().findtext("version", "").strip()


def lines_of(file: str) -> list[str]:
    """The entries of a list file: one a line, `#` starts a comment."""
    entries = (line.split("#")[0].strip() for line in (ROOT / file).read_text().splitlines())
    return [entry for entry in entries if entry]


def ros_prefixes() -> list[str]:
    """Folders that hold ROS packages, or none if the message generators are not among them."""
    # sys.prefix is the environment that is installed into, also in pip's isolated build.
    candidates = [*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix]
    found = [p for p in dict.fromkeys(candidates) if p and Path(p, "share/ament_index").is_dir()]
    complete = any(Path(p, "share/rosidl_default_generators").is_dir() for p in found)
    return found if complete else []


PREFIXES = ros_prefixes()


class RosDistribution(Distribution):
    """A distribution whose wheel is bound to this Python when it contains built messages."""

    def has_ext_modules(self) -> bool:
        """Whether the wheel holds compiled code."""
        return bool(PREFIXES)


class BuildRos(Command):
    """Run the package's own CMakeLists.txt and take over what it installs.

    This is a command of its own because setuptools hides the errors of a replaced build_py when
    the install is editable.
    """

    def initialize_options(self) -> None:
        """Declare the folders that setuptools fills in."""
        self.build_lib = None
        self.build_temp = None
        self.editable_mode = False

    def finalize_options(self) -> None:
        """Take the folders over from `build`."""
        options = ("build_lib", "build_lib"), ("build_temp", "build_temp")
        self.set_undefined_options("build", *options)

    def get_source_files(self) -> list[str]:
        """The files this command reads, for a source distribution."""
        paths = (p for folder in ROS_SOURCES for p in sorted((ROOT / folder).rglob("*")))
        return [str(p.relative_to(ROOT)) for p in paths if p.is_file()]

    def get_outputs(self) -> list[str]:
        """Required by setuptools; data files and messages are listed elsewhere."""
        return []

    def get_output_mapping(self) -> dict[str, str]:
        """Required by setuptools; nothing here is linked back to the sources."""
        return {}

    def run(self) -> None:
        """Build, then hand the messages and the data files to setuptools."""
        if not PREFIXES:
            self.warn("no ROS 2 message generators found: occany_ros.msg is not built")
            return
        # An editable install is repeated often: keep its build, so that only changes are compiled.
        build_dir = Path(sys.prefix if self.editable_mode else self.build_temp).resolve()
        build_dir = build_dir / "build" / "occany_ros"
        stage = build_dir / "stage"
        shutil.rmtree(stage, ignore_errors=True)
        self.build_with_cmake(build_dir, stage)
        site = next(stage.glob("**/occany_ros/msg/__init__.py")).parents[2]
        self.copy_messages(site)
        self.distribution.data_files = self.data_files(stage, site)
        if self.editable_mode:  # setuptools leaves the data files out of these
            self.get_finalized_command("install_data").data_files = self.distribution.data_files
            self.run_command("install_data")

    def build_with_cmake(self, build_dir: Path, stage: Path) -> None:
        """Configure, build and install the CMake package into `stage`."""
        env = dict(os.environ)
        env["AMENT_PREFIX_PATH"] = env["CMAKE_PREFIX_PATH"] = os.pathsep.join(PREFIXES)
        libraries = [f"{p}/lib" for p in PREFIXES]
        env["LD_LIBRARY_PATH"] = os.pathsep.join([*libraries, env.get("LD_LIBRARY_PATH", "")])
        # The generators' Python packages instead of those of pip's build environment.
        patterns = ("lib/python3*/*-packages", "local/lib/python3*/*-packages")
        sites = (str(site) for p in PREFIXES for pat in patterns for site in Path(p).glob(pat))
        env["PYTHONPATH"] = os.pathsep.join(sites)
        configure = [
            *("cmake", "-S", str(ROOT), "-B", str(build_dir)),
            *("-DBUILD_TESTING=OFF", "-DCMAKE_BUILD_TYPE=Release", "-Wno-dev"),
            *(f"-DCMAKE_INSTALL_PREFIX={stage}", f"-DPython3_EXECUTABLE={sys.executable}"),
        ]
        install = ["cmake", "--build", str(build_dir), "--parallel", "--target", "install"]
        for command in (configure, install):
            subprocess.run(command, check=True, env=env)

    def copy_messages(self, site: Path) -> None:
        """Put occany_ros.msg and occany_ros.srv beside the node's modules.

        An editable install runs from the checkout, so they go there.
        """
        target_root = ROOT if self.editable_mode else Path(self.build_lib)
        for path in sorted((site / "occany_ros").rglob("*")):
            is_interface = path.parent.name in ("msg", "srv") and path.suffix == ".py"
            if path.suffix == ".so" or is_interface:
                target = target_root / path.relative_to(site)
                self.mkpath(str(target.parent))
                self.copy_file(str(path), str(target))

    def data_files(self, stage: Path, site: Path) -> list[tuple[str, list[str]]]:
        """Everything else that CMake installed, by its folder below the prefix."""
        modules = dict(line.split() for line in lines_of("cmake/executables.txt"))
        by_folder: dict[str, list[str]] = {}
        for path in sorted(stage.rglob("*")):
            relative = path.relative_to(stage)
            if not path.is_file() or site in path.parents:
                continue
            if relative.parts[0] in ("include", "bin"):  # C++ headers; pip makes its own script
                continue
            if relative.parent == Path("lib/occany_ros"):
                # The Python of the environment in which this file ends up.
                python = '"$(dirname "$(readlink -f "$0")")/../../bin/python"'
                path.write_text(f'#!/bin/sh\nexec {python} -m {modules[path.name]} "$@"\n')
            by_folder.setdefault(str(relative.parent), []).append(str(path))
        return list(by_folder.items())


build.sub_commands = [*build.sub_commands, ("build_ros", None)]

setup(
    name="occany_ros",
    version=version(),
    description="Camera images in, metric labelled 3D voxel grids out, with and without ROS 2",
    license="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    packages=find_packages(
        include=["occany_core*", "occany_ros*"], exclude=["occany_ros.msg*", "occany_ros.srv*"]
    ),
    package_data={
        "occany_core": [
            "py.typed",
            "weights/*.safetensors",
            "weights/*.json",
            "evaluation/*.npz",
            "synthetic/*.npz",
            "datasets/*.yaml",
        ]
    },
    python_requires=">=3.10",
    install_requires=["torch", "numpy", "pyyaml", "safetensors", "jaxtyping", "pillow>=10.1"],
    extras_require={
        "semantics": ["transformers>=5,<6"],
        "train": ["tensorboard", "pyarrow", "fsspec"],
        "bags": ["rosbags"],
        "download": ["huggingface_hub"],
        "view": ["rerun-sdk>=0.23"],
        "ros": lines_of("dev/requirements.txt"),
        # launch_pytest of ROS 2 does not work with pytest 8.4 and later
        # Rerun 0.26 is half as large as the versions after it
        "dev": [
            "pytest>=8,<8.4",
            "hypothesis",
            "ruff",
            "rerun-sdk>=0.23,<0.27",
            "transformers>=5,<6",
        ],
    },
    entry_points={"console_scripts": ["occany = occany_core.cli.main:main"]},
    distclass=RosDistribution,
    cmdclass={"build_ros": BuildRos},
)

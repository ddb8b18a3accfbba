# SPDX-License-Identifier: Apache-2.0
"""The robot's side: ROS 2 nodes around `occany_core`, and no arithmetic beyond conversions."""

from pkgutil import extend_path

# The messages built from msg/ are installed as occany_ros.msg. With this line a source checkout
# that comes first on the path still finds them.
__path__ = extend_path(__path__, __name__)

# SPDX-License-Identifier: Apache-2.0
"""What can be measured: equality with golden sets, speed, memory, precision."""

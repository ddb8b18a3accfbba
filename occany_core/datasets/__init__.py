# SPDX-License-Identifier: Apache-2.0
"""Public evaluation sets: their files, frames, samples and class tables, as arrays."""

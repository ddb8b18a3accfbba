# SPDX-License-Identifier: Apache-2.0
"""Training on rendered streets: packed samples -> batches -> losses -> weights."""

# SPDX-License-Identifier: Apache-2.0
"""Weights in files: our own format, and the names of the released one."""

from occany_core.checkpoints.store import Model, load_model, save_model, write_metrics

__all__ = ["Model", "load_model", "save_model", "write_metrics"]

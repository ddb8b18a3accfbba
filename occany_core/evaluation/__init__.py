# SPDX-License-Identifier: Apache-2.0
"""Scores of grids against truth: metrics, baselines and protocols."""

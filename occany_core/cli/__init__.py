# SPDX-License-Identifier: Apache-2.0
"""The command line `occany`: one verb per file."""

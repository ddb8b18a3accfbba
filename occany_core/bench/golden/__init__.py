# SPDX-License-Identifier: Apache-2.0
"""Golden sets: numbers of the released code on small inputs, compared stage by stage."""

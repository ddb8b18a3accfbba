# SPDX-License-Identifier: Apache-2.0
"""What training minimises: one module per term of training page 4 (base) and 5 (plus)."""

# SPDX-License-Identifier: Apache-2.0
"""One module a program; each has `CASES`."""

# SPDX-License-Identifier: Apache-2.0
"""One module for each program or kind of program; each defines `CASES`."""

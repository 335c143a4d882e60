# SPDX-License-Identifier: Apache-2.0
"""Fit a damped oscillation: optimize.py differential_evolution GENERATIONS | brute GRID_POINTS."""

import sys

import numpy as np
from scipy.optimize import brute, differential_evolution

TIMES = np.linspace(0, 10, 20_000)
OBSERVED = np.exp(-0.3 * TIMES) * np.cos(2.5 * TIMES)


def misfit(parameters):
    damping, frequency = parameters
    return float(np.sum((np.exp(-damping * TIMES) * np.cos(frequency * TIMES) - OBSERVED) ** 2))


if __name__ == "__main__":
    method, size = sys.argv[1], int(sys.argv[2])
    if method == "brute":
        ranges = (slice(0, 1, 1 / size), slice(1, 4, 3 / size))
        found, value, _, _ = brute(misfit, ranges, full_output=True, finish=None, workers=2)
        print(found, f"{value:.12f}")
    else:
        found = differential_evolution(
            misfit, [(0, 1), (1, 4)], maxiter=size, popsize=20, tol=0, polish=False, rng=1,
            workers=2, updating="deferred",
        )  # fmt: skip
        print(found.x, f"{found.fun:.12f}", found.nfev)

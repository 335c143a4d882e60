# SPDX-License-Identifier: Apache-2.0
"""Sample the parameters of a line with noise: emcee_chain.py STEPS."""

import sys
from multiprocessing import Pool

import emcee
import numpy as np

RANDOM = np.random.default_rng(1)
X = np.sort(10 * RANDOM.random(5_000))
Y = 2.0 * X + 1.0 + RANDOM.standard_normal(len(X))


def log_probability(parameters):
    slope, intercept, log_noise = parameters
    if not (-5 < slope < 5 and -10 < intercept < 10 and -5 < log_noise < 5):
        return -np.inf
    variance = np.exp(2 * log_noise)
    return -0.5 * np.sum((Y - slope * X - intercept) ** 2 / variance + np.log(variance))


if __name__ == "__main__":
    steps = int(sys.argv[1])
    start = np.array([2.0, 1.0, 0.0]) + 1e-3 * RANDOM.standard_normal((32, 3))
    np.random.seed(7)  # emcee draws from the global state
    with Pool(2) as pool:
        sampler = emcee.EnsembleSampler(32, 3, log_probability, pool=pool)
        sampler.run_mcmc(start, steps)
    print(sampler.get_chain(flat=True).mean(axis=0))
    print(f"{sampler.acceptance_fraction.mean():.6f}")

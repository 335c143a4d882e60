# SPDX-License-Identifier: Apache-2.0
"""Confidence limits of a regression by resampling: bootstrap.py RESAMPLES."""

import multiprocessing
import sys

import numpy as np
import statsmodels.api as sm

data = None


def keep(X, y):
    global data
    data = X, y


def fit(seed):
    X, y = data
    chosen = np.random.default_rng(seed).integers(0, len(y), len(y))
    return sm.OLS(y[chosen], X[chosen]).fit().params


if __name__ == "__main__":
    random = np.random.default_rng(1)
    X = sm.add_constant(random.standard_normal((5_000, 6)))
    y = X @ np.arange(7.0) + random.standard_normal(5_000)
    with multiprocessing.Pool(2, initializer=keep, initargs=(X, y)) as pool:
        estimates = np.array(list(pool.imap(fit, range(int(sys.argv[1])))))
    for low, high in np.percentile(estimates, [2.5, 97.5], axis=0).T:
        print(f"{low:.9f} {high:.9f}")

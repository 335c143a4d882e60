# SPDX-License-Identifier: Apache-2.0
"""Which features a forest needs: importance.py SAMPLES."""

import sys

from sklearn.datasets import make_regression
from sklearn.ensemble import RandomForestRegressor
from sklearn.inspection import permutation_importance

if __name__ == "__main__":
    X, y = make_regression(n_samples=int(sys.argv[1]), n_features=12, random_state=1)
    forest = RandomForestRegressor(n_estimators=20, max_depth=8, random_state=0).fit(X, y)
    found = permutation_importance(forest, X, y, n_repeats=10, random_state=0, n_jobs=2)
    for mean, deviation in zip(found.importances_mean, found.importances_std):
        print(f"{mean:.9f} {deviation:.9f}")

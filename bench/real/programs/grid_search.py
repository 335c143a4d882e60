# SPDX-License-Identifier: Apache-2.0
"""A grid search over forests: grid_search.py SAMPLES."""

import sys

from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GridSearchCV

if __name__ == "__main__":
    X, y = make_classification(n_samples=int(sys.argv[1]), n_features=20, random_state=1)
    grid = {"n_estimators": [10, 20], "max_depth": [4, 8], "min_samples_leaf": [1, 4]}
    search = GridSearchCV(RandomForestClassifier(random_state=0), grid, cv=3, n_jobs=2)
    search.fit(X, y)
    for parameters, score in zip(
        search.cv_results_["params"], search.cv_results_["mean_test_score"]
    ):
        print(f"{score:.12f} {parameters}")
    print(search.best_params_)

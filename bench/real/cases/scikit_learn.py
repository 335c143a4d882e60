# SPDX-License-Identifier: Apache-2.0
"""scikit-learn with n_jobs=2: a grid search and permutation importance, both by joblib."""

from case import SCIENCE, Case, program

CASES = [
    Case(
        name="grid_search",
        title="GridSearchCV(n_jobs=2)",
        group=SCIENCE,
        parallel_by="joblib (loky)",
        arguments=program("grid_search.py", 2000),
        quick_arguments=program("grid_search.py", 200),
    ),
    Case(
        name="permutation_importance",
        title="permutation_importance(n_jobs=2)",
        group=SCIENCE,
        parallel_by="joblib (loky)",
        arguments=program("importance.py", 4000),
        quick_arguments=program("importance.py", 200),
    ),
]

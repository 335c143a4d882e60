# SPDX-License-Identifier: Apache-2.0
"""statsmodels: a bootstrap of a regression with a Pool; an initializer receives the data."""

from case import SCIENCE, Case, program

CASES = [
    Case(
        name="statsmodels_bootstrap",
        title="statsmodels OLS, 120 resamples",
        group=SCIENCE,
        parallel_by="Pool.imap, initializer",
        arguments=program("bootstrap.py", 120),
        quick_arguments=program("bootstrap.py", 8),
    ),
    Case(
        name="statsmodels_kde",
        title="statsmodels KDEMultivariate(n_jobs=2)",
        group=SCIENCE,
        parallel_by="joblib (loky)",
        arguments=program("bandwidth.py", 600),
        quick_arguments=program("bandwidth.py", 60),
    ),
]

# SPDX-License-Identifier: Apache-2.0
"""The bandwidth of a density estimate, found on blocks of the data: bandwidth.py ROWS."""

import sys

import numpy as np
from statsmodels.nonparametric.kernel_density import EstimatorSettings, KDEMultivariate

if __name__ == "__main__":
    rows = int(sys.argv[1])
    np.random.seed(1)  # statsmodels draws the blocks from the global state
    values = np.random.standard_normal((rows, 2))
    settings = EstimatorSettings(efficient=True, n_sub=rows // 6, n_res=6, n_jobs=2)
    estimate = KDEMultivariate(values, var_type="cc", bw="cv_ml", defaults=settings)
    print(estimate.bw, f"{estimate.pdf(values[:5]).sum():.9f}")

# SPDX-License-Identifier: Apache-2.0
"""Adapters for libraries that have their own kind of pool: one module for each library.

`shoal.adapters.joblib`: a backend for joblib, and so for scikit-learn.
"""

# SPDX-License-Identifier: Apache-2.0
"""Shoal for libraries that have their own idea of a pool: one module for each.

`shoal.adapters.joblib`: a backend for joblib, and with it for scikit-learn.
"""

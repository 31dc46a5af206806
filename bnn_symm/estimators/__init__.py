"""Provide scikit-learn estimators that fit Bayesian neural networks with `fit` and `predict`."""

from bnn_symm.estimators.classifier import BNNClassifier
from bnn_symm.estimators.regressor import BNNRegressor

__all__ = ["BNNClassifier", "BNNRegressor"]

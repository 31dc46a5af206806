"""Provide scikit-learn estimators that fit Bayesian neural networks with `fit` and `predict`.

In: arrays or data frames. Out: fitted estimators with `posterior_`. Reading order: `classifier`,
`regressor`, `base`, `parameters`, `training_data`.
"""

from bnn_symm.estimators.classifier import BNNClassifier
from bnn_symm.estimators.regressor import BNNRegressor

__all__ = ["BNNClassifier", "BNNRegressor"]

"""scikit-learn estimators: the models, methods and units of this package behind `fit` and
`predict`.
"""

from bnn_symm.estimators.classifier import BNNClassifier
from bnn_symm.estimators.regressor import BNNRegressor

__all__ = ["BNNClassifier", "BNNRegressor"]

"""Train zoos of small networks, and predict their test scores from their weights.

In: a configuration whose section `zoo` has the ranges of the hyper-parameters. Out: a directory
with the weights, hyper-parameters and scores of all networks (`train_zoo`, `load_zoo`), and how
well predictors of these scores do on held-out networks (`compare_predictors`). One of the
predictors is invariant under the symmetry group of the architecture, by construction. Reading
order: `config`, `training`, `scores`, `directory`, `training_run`, then `weight_blocks`,
`invariant_network`, `predictors`, `comparison`.
"""

from bnn_symm.zoo.comparison import PredictorScore, ZooResult, compare_predictors
from bnn_symm.zoo.config import ZooConfig, ZooPlan, load_zoo_plan
from bnn_symm.zoo.directory import Zoo, load_zoo
from bnn_symm.zoo.training_run import ZooRun, create_zoo, resume_zoo

__all__ = [
    "PredictorScore",
    "Zoo",
    "ZooConfig",
    "ZooPlan",
    "ZooResult",
    "ZooRun",
    "compare_predictors",
    "create_zoo",
    "load_zoo",
    "load_zoo_plan",
    "resume_zoo",
]

"""Define the likelihoods of targets given network outputs (config section `likelihood`).

Every likelihood is one settings class. Targets are in the units of training: standardized for
regression, counts for counts, class indices for classes, and times divided by a constant.

Reading order: `likelihood` (the interface), `gaussian`, `multivariate_gaussian`, `classification`,
`exposure`, `counts`, `student_t`, `gaussian_mixture`, `ordinal`, `zero_inflated`, `survival`,
`registry` (all of them, the default of each task, checks), `capabilities` (optional members).
"""

from bnn_symm.models.likelihoods.capabilities import (
    canonical_outputs,
    condition,
    fixed_num_outputs,
    has_events,
    is_classification,
    is_count,
    is_ordered,
    normal_components,
    num_classes,
    num_columns,
    output_names,
    target_distribution,
    without_exposure,
)
from bnn_symm.models.likelihoods.classification import Bernoulli, Categorical
from bnn_symm.models.likelihoods.counts import (
    NegativeBinomial,
    Poisson,
    count_bound,
    count_intervals,
)
from bnn_symm.models.likelihoods.gaussian import Gaussian, HeteroscedasticGaussian
from bnn_symm.models.likelihoods.gaussian_mixture import GaussianMixture
from bnn_symm.models.likelihoods.likelihood import (
    ClassLikelihood,
    Latents,
    Likelihood,
    NumberLikelihood,
)
from bnn_symm.models.likelihoods.multivariate_gaussian import MultivariateGaussian
from bnn_symm.models.likelihoods.ordinal import Ordinal
from bnn_symm.models.likelihoods.registry import (
    AnyLikelihood,
    build_likelihood,
    check_likelihood,
    check_task,
    default_likelihood,
    resolve_likelihood,
)
from bnn_symm.models.likelihoods.student_t import HeteroscedasticStudentT, StudentT
from bnn_symm.models.likelihoods.survival import LogNormal, Weibull
from bnn_symm.models.likelihoods.zero_inflated import (
    ZeroInflatedNegativeBinomial,
    ZeroInflatedPoisson,
)

__all__ = [
    "AnyLikelihood",
    "Bernoulli",
    "Categorical",
    "ClassLikelihood",
    "Gaussian",
    "GaussianMixture",
    "HeteroscedasticGaussian",
    "HeteroscedasticStudentT",
    "Latents",
    "Likelihood",
    "LogNormal",
    "MultivariateGaussian",
    "NegativeBinomial",
    "NumberLikelihood",
    "Ordinal",
    "Poisson",
    "StudentT",
    "Weibull",
    "ZeroInflatedNegativeBinomial",
    "ZeroInflatedPoisson",
    "build_likelihood",
    "canonical_outputs",
    "check_likelihood",
    "check_task",
    "condition",
    "count_bound",
    "count_intervals",
    "default_likelihood",
    "fixed_num_outputs",
    "has_events",
    "is_classification",
    "is_count",
    "is_ordered",
    "normal_components",
    "num_classes",
    "num_columns",
    "output_names",
    "resolve_likelihood",
    "target_distribution",
    "without_exposure",
]

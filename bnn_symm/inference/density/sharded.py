"""The tempered log density as a sum over processes, each with a share of the training split.

    U(w) = sum over processes of (-log p(share of y | x, w) / T - prior_weight / processes log p(w))

One reduction per call, in float64, sums gradients, values, the number of processes with a stop
request, and a checksum of the positions. So all processes stop at the same gradient, and processes
whose positions differ (processors may round differently) end with an error, not with a wrong
posterior.

A single process adds the same terms in another order. This is the only difference: a process that
adds the shares gives bitwise identical results. After ten transitions of HMC with ten steps on
digits, in float64, the positions differ by 4e-16 of the largest weight with a fixed step size, and
by 7e-14 after ten iterations of warm-up: dual averaging amplifies a change of an acceptance rate,
from the rounding of U, up to 20 sqrt(updates) times in the logarithm of the step size.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from bnn_symm.data import Split
from bnn_symm.inference.density.density import TemperedDensity
from bnn_symm.inference.parallel.process_group import ProcessGroup
from bnn_symm.models import BayesianModel

# Checksums below 2^32 have exact sums in float64 over up to 2^21 processes.
_CHECKSUMS = 2**32


class ShardedDensity(TemperedDensity):
    """U and its gradient, bitwise identical in all processes, which evaluate it together.

    Only the share is compiled, because a reduction cannot be part of a compiled function.

    Args:
        model: the model.
        part: this process's share of the data.
        group: the processes.
        should_stop: whether a stop was requested in this process.
        temperature: T, which divides the log likelihood.
        prior_weight: the factor of the log prior.
        like: (chain, parameter), finite, with the shape of all later batches.
        compile: whether to compile.
    """

    def __init__(
        self,
        model: BayesianModel,
        part: Split,
        *,
        group: ProcessGroup,
        should_stop: Callable[[], bool],
        temperature: float,
        prior_weight: float,
        like: Float[Tensor, "chain parameter"],
        compile: bool,
    ):
        super().__init__(
            model,
            part,
            temperature=temperature,
            prior_weight=prior_weight / group.size,
            like=like,
            compile=compile,
        )
        self._group, self._asked_to_stop = group, should_stop
        self._stop = False

    @property
    def can_be_inlined(self) -> bool:
        """Return whether a larger compiled function may contain `evaluate`: never."""
        return False

    def should_stop(self) -> bool:
        """Return whether a stop was requested in any process; the same in all."""
        return self._stop

    def __call__(
        self, positions: Float[Tensor, "chain parameter"]
    ) -> tuple[Float[Tensor, " chain"], Float[Tensor, "chain parameter"]]:
        """Return U in float64, and its gradient.

        Args:
            positions: flat vectors.

        Raises:
            ProcessLost: if a process terminated, does not respond, or has other positions.
        """
        energies, gradients = super().__call__(positions)
        checksum = _checksum(positions)
        flags = energies.new_tensor([float(self._asked_to_stop()), float(checksum)])
        everything = torch.cat([gradients.double().flatten(), energies, flags])
        self._group.sum(everything)
        gradient, energy, flags = everything.split([gradients.numel(), len(energies), 2])
        stop, checksums = flags.tolist()
        if checksums != self._group.size * checksum:
            raise self._group.mark_broken(
                f"the {self._group.size} processes have different positions: their processors or "
                "libraries round differently; start them on machines of one kind"
            )
        self._stop = stop > 0
        return energy, gradient.view_as(gradients).to(gradients.dtype)


def _checksum(positions: Tensor) -> int:
    """Return a number below 2^32 that changes with any bit, and almost surely with any exchange."""
    words = positions.contiguous().view(torch.int32).flatten().to(torch.int64)
    places = torch.arange(1, 2 * len(words), 2, device=words.device)
    # Overflow wraps around, identically in every process.
    return int((words * (places % 65_537)).sum()) % _CHECKSUMS

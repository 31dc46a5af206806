"""Trees that are grown leaf by leaf, against trees of which every leaf is remembered; compiled and
not."""

import math
import subprocess
import sys
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from bnn_symm.inference.density import density
from bnn_symm.inference.density.compiled import CompilerWarning, has_compiler
from bnn_symm.inference.density.density import TemperedDensity
from bnn_symm.inference.mcmc.integrator import kinetic_energy, leapfrog
from bnn_symm.inference.mcmc.nuts_kernel import NUTSKernel
from bnn_symm.inference.mcmc.nuts_tree import Checkpoints
from bnn_symm.testing import exact_posterior, linear_regression
from tests.models.cases import normal

STEP = 0.14


@dataclass
class Uniforms:
    """Of one transition."""

    direction: np.ndarray
    subtree: np.ndarray
    leaf: np.ndarray


def kernel_of(
    chains: int, max_depth: int, *, dense: bool = False, compile: bool = False
) -> NUTSKernel:
    """Chains at draws from the posterior of linear regression: trees of up to 63 leaves, of which
    none diverges."""
    model, data = linear_regression()
    exact = exact_posterior(data)
    root = torch.linalg.cholesky(torch.linalg.inv(exact.precision))
    positions = exact.mean + normal(chains, model.num_parameters) @ root.T
    target = TemperedDensity(
        model, data.train, temperature=1.0, prior_weight=1.0, like=positions, compile=compile
    )
    mass = exact.sd.square().diag() if dense else exact.sd.square()
    return NUTSKernel(
        target, positions, mass.expand(chains, *mass.shape), seed=0, max_depth=max_depth
    )


def begin(kernel: NUTSKernel, chains: np.ndarray, iterations: np.ndarray) -> None:
    kernel.begin(
        chains,
        iterations,
        np.full(len(chains), STEP),
        kernel.points.inverse_mass[torch.from_numpy(chains)],
    )


def is_turning(momenta: list[torch.Tensor], mass: torch.Tensor) -> bool:
    along = mass * (sum(momenta) - 0.5 * (momenta[0] + momenta[-1]))
    return bool(along @ momenta[0] <= 0 or along @ momenta[-1] <= 0)


def remembered(
    kernel: NUTSKernel, chain: int, momentum: torch.Tensor, uniforms: Uniforms, max_depth: int
):
    """A transition of one chain by the definition (Betancourt 2017, appendix A): its draw and its
    leaves."""
    mass = kernel.points.inverse_mass[chain]
    position, gradient = (
        values[chain].clone() for values in (kernel.points.position, kernel.points.gradient)
    )
    energy = float(kernel.points.energy[chain] + kinetic_energy(momentum[None], mass[None]))
    draw, tree_weight, leaves = position, 0.0, 0
    momenta = [momentum]  # of the tree, backward to forward
    ends = {direction: (position, momentum, gradient) for direction in (-1, 1)}
    for depth in range(max_depth):
        direction = 1 if uniforms.direction[depth] < 0.5 else -1
        at, subtree, weight, drawn = ends[direction], [], -math.inf, None
        for leaf in range(2**depth):
            step = torch.tensor([direction * STEP], dtype=torch.float64)
            q, p, g, u = leapfrog(kernel._density, *(value[None] for value in at), step, mass[None])
            at = q[0], p[0], g[0]
            own = energy - float(u + kinetic_energy(p, mass[None]))
            weight = np.logaddexp(weight, own)
            if uniforms.leaf[leaves] < math.exp(own - weight):
                drawn = q[0]
            leaves += 1
            subtree.append(p[0])
            sizes = [2**j for j in range(1, depth + 1) if (leaf + 1) % 2**j == 0]
            if any(is_turning(subtree[leaf + 1 - size :], mass) for size in sizes):
                return draw, leaves
        if uniforms.subtree[depth] < math.exp(min(weight - tree_weight, 0.0)):
            draw = drawn
        tree_weight = np.logaddexp(tree_weight, weight)
        momenta = momenta + subtree if direction > 0 else subtree[::-1] + momenta
        ends[direction] = at
        if is_turning(momenta, mass):
            break
    return draw, leaves


@pytest.mark.parametrize(
    ("chains", "max_depth"),
    [
        *(pytest.param(*case, marks=pytest.mark.thorough) for case in ((5, 10), (3, 4), (2, 1))),
        (1, 10),
        (2, 2),
    ],
)
def test_trees_and_draws_are_those_of_the_definition(chains, max_depth):
    kernel = kernel_of(chains, max_depth)
    trees, found = kernel._trees, []
    wanted = {}

    def start(ready, iteration):
        begin(kernel, ready, np.full(len(ready), iteration))
        for chain in ready.tolist():
            uniforms = Uniforms(
                trees.choose_direction[chain].numpy().copy(),
                trees.choose_subtree[chain].numpy().copy(),
                trees.choose_leaf[:, chain].numpy().copy(),
            )
            wanted[chain] = remembered(
                kernel, chain, trees.end_momentum[0, chain].clone(), uniforms, max_depth
            )

    start(np.arange(chains), 0)
    for iteration in range(1, 600 if chains == 5 else 200):
        ended = kernel.advance()
        for row, chain in enumerate(ended.chains.tolist()):
            draw, leaves = wanted[chain]
            assert ended.stats["n_steps"][row] == leaves
            torch.testing.assert_close(kernel.points.position[chain], draw, rtol=1e-9, atol=1e-12)
            found.append(leaves)
        if len(ended.chains):
            start(ended.chains, iteration)
    if chains == 5:
        # Some trees end within their newest subtree, by a check of what is kept of it.
        assert any((leaves + 1) & leaves for leaves in found)


def test_a_subtree_is_checked_against_its_first_leaf():
    checkpoints = Checkpoints.of(7, torch.device("cpu"))
    kept = {}
    for leaf in range(2**6):
        last, before = int(checkpoints.last[leaf]), int(checkpoints.before[leaf])
        for j, slot in enumerate(range(last, before, -1)):
            # Where this is the first leaf itself, nothing has been kept in its place yet.
            assert kept[slot] == leaf + 1 - 2 ** (j + 1)
        kept[int(checkpoints.stored[leaf])] = leaf


def check_compiled(chains: int, dense: bool, groups: bool) -> None:
    if groups:
        density._GROUP_BYTES = 1
    compiled, plain = (
        kernel_of(chains, 6, dense=dense, compile=compile) for compile in (True, False)
    )
    assert compiled._density.can_be_inlined != groups
    with warnings.catch_warnings():
        warnings.simplefilter("error", CompilerWarning)
        for kernel in (compiled, plain):
            begin(kernel, np.arange(chains), np.zeros(chains, dtype=np.int64))
            kernel.steps = []
            iteration = 1
            while iteration < 12:
                ended = kernel.advance()
                if len(ended.chains):
                    kernel.steps += ended.stats["n_steps"].tolist()
                    begin(kernel, ended.chains, np.full(len(ended.chains), iteration))
                    iteration += 1
    assert groups or compiled._leaf_step.is_replayed
    assert compiled._join_and_start.is_replayed
    assert compiled.steps == plain.steps
    torch.testing.assert_close(
        compiled.points.position, plain.points.position, rtol=1e-8, atol=1e-10
    )


@pytest.mark.thorough
@pytest.mark.skipif(not has_compiler(), reason="there is no C++ compiler")
@pytest.mark.parametrize(
    ("chains", "dense", "groups"),
    [
        (5, False, False),
        pytest.param(1, True, False, marks=pytest.mark.slow),
        pytest.param(3, False, True, marks=pytest.mark.slow),
    ],
)
def test_compiled_they_are_the_same(chains, dense, groups):
    # In a process of its own: functions whose annotations are checked, as they are here, cannot be
    # compiled.
    call = f"check_compiled({chains}, {dense}, {groups})"
    code = f"from tests.inference.mcmc.test_no_u_turn import check_compiled; {call}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

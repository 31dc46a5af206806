"""Provide the NUTS of NumPyro, and NUTS and MCLMC of BlackJAX, for `sampler_peers`."""

import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Answer = dict[str, Any]

# Steps of MCLMC from one draw to the next, of two gradients each, here and in this toolkit.
STEPS_PER_DRAW = 10
# The step size of BlackJAX's MCLMC, in units of the square root of the number of parameters. It
# does not change the cost of a step.
_MCLMC_STEP_SIZE = 0.003


class CompileClock:
    """Measure the seconds in which JAX traces, lowers and compiles, without overlap."""

    def __init__(self) -> None:
        from jax import monitoring

        self._spans: list[tuple[float, float]] = []
        self.busy = 0.0  # processor seconds of the last timed work, without compilation
        monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event: str, seconds: float, **_: Any) -> None:
        if event.startswith("/jax/core/compile/"):
            now = time.perf_counter()
            self._spans.append((now - seconds, now))

    def timed(self, work: Callable[[], Any]) -> tuple[Any, float, float]:
        """Return the result of `work`, and its seconds without and of compilation."""
        import jax

        self._spans.clear()
        started, busy = time.perf_counter(), time.process_time()
        result = jax.block_until_ready(work())
        seconds, busy = time.perf_counter() - started, time.process_time() - busy
        compiling, end = 0.0, started
        for begin, stop in sorted(self._spans):
            compiling += max(0.0, stop - max(begin, end))
            end = max(end, stop)
        self.busy = busy * (1 - compiling / seconds)
        return result, seconds - compiling, compiling


class _Jax:
    """Provide what NumPyro and BlackJAX share: the log density of a problem on one flat vector."""

    def __init__(self, problem: dict[str, np.ndarray]):
        import jax
        import jax.numpy as jnp

        self.clock = CompileClock()
        self.starts = {
            int(seed): jnp.asarray(at)
            for seed, at in zip(problem["seeds"], problem["starts"], strict=True)
        }
        x, y = jnp.asarray(problem["x"]), jnp.asarray(problem["y"])
        scales = jnp.asarray(problem["scales"])
        sizes, kind, noise = (
            problem["sizes"].tolist(),
            str(problem["kind"]),
            float(problem["noise"]),
        )

        def outputs(flat: Any) -> Any:
            hidden, start = x, 0
            for depth, (before, after) in enumerate(itertools.pairwise(sizes)):
                weight = flat[start : start + before * after].reshape(after, before)
                start += before * after
                hidden = hidden @ weight.T + flat[start : start + after]
                start += after
                if depth < len(sizes) - 2:
                    hidden = jnp.tanh(hidden)
            return hidden

        def log_density(flat: Any) -> Any:
            out = outputs(flat)
            if kind == "gaussian":
                points = jax.scipy.stats.norm.logpdf(y, out[:, 0], noise)
            elif kind == "bernoulli":
                points = jax.nn.log_sigmoid(jnp.where(y == 1, out[:, 0], -out[:, 0]))
            else:
                points = jnp.take_along_axis(jax.nn.log_softmax(out), y[:, None], axis=1)[:, 0]
            return points.sum() + jax.scipy.stats.norm.logpdf(flat, 0, scales).sum()

        self.log_density = log_density

    def check(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        import jax

        values, gradients = jax.jit(jax.vmap(jax.value_and_grad(self.log_density)))(positions)
        return np.asarray(values), np.asarray(gradients)


class NumPyroNUTS(_Jax):
    """Run numpyro.infer.MCMC(NUTS(potential_fn), chain_method="vectorized")."""

    def warmup(
        self, *, seed: int, chains: int, iterations: int, draws: int, depth: int, accept: float
    ) -> Answer:
        import jax
        from numpyro.infer import MCMC, NUTS

        settings = (chains, iterations, draws, depth, accept)
        if settings != getattr(self, "_settings", None):  # the same object is not compiled again
            self._settings = settings
            self.mcmc = MCMC(
                NUTS(
                    potential_fn=lambda flat: -self.log_density(flat),
                    max_tree_depth=depth,
                    target_accept_prob=accept,
                ),
                num_warmup=iterations,
                num_samples=draws,
                num_chains=chains,
                chain_method="vectorized",
                progress_bar=False,
            )
        key = jax.random.key(seed)

        def work() -> Any:
            self.mcmc.warmup(
                key,
                init_params=self.starts[seed][:chains],
                extra_fields=("num_steps", "accept_prob"),
                collect_warmup=True,
            )
            return self.mcmc.last_state

        state, seconds, compiling = self.clock.timed(work)
        steps = np.asarray(self.mcmc.get_extra_fields(group_by_chain=True)["num_steps"])
        return {
            "seconds": seconds,
            "busy_seconds": self.clock.busy,
            "compile_seconds": compiling,
            "steps": int(steps.sum()),
            "lane_steps": int(steps.max(0).sum()) * chains,
            "step_size": np.asarray(state.adapt_state.step_size).tolist(),
        }

    def sample(self, draws: int) -> tuple[Answer, np.ndarray]:
        assert draws == self.mcmc.num_samples, "NumPyro compiles for a number of draws"

        def work() -> Any:
            self.mcmc.run(self.mcmc.last_state.rng_key, extra_fields=("num_steps", "accept_prob"))
            self.mcmc.post_warmup_state = self.mcmc.last_state
            return self.mcmc.get_samples(group_by_chain=True)

        positions, seconds, compiling = self.clock.timed(work)
        fields = {
            name: np.asarray(v)
            for name, v in self.mcmc.get_extra_fields(group_by_chain=True).items()
        }
        return sampled(
            seconds,
            self.clock.busy,
            compiling,
            fields["num_steps"],
            fields["diverging"],
            fields["accept_prob"],
        ), np.asarray(positions)


class BlackJaxNUTS(_Jax):
    """Run blackjax.window_adaptation and blackjax.nuts per chain, under vmap and scan."""

    _compiled: dict[Any, Any]

    def warmup(
        self, *, seed: int, chains: int, iterations: int, draws: int, depth: int, accept: float
    ) -> Answer:
        import blackjax
        import jax
        from blackjax.adaptation.base import get_filter_adapt_info_fn

        self._keys = jax.random.key(seed)
        if (chains, iterations, depth, accept) != getattr(self, "_adapted", None):
            self._adapted = (chains, iterations, depth, accept)
            adaptation = blackjax.window_adaptation(
                blackjax.nuts,
                self.log_density,
                target_acceptance_rate=accept,
                initial_step_size=0.1,
                adaptation_info_fn=get_filter_adapt_info_fn(info_keys={"num_integration_steps"}),
                max_num_doublings=depth,
            )

            def one(key: Any, start: Any) -> Any:
                (state, parameters), info = adaptation.run(key, start, iterations)
                return state, parameters["step_size"], parameters["inverse_mass_matrix"], info.info

            self._run_adaptation = jax.jit(jax.vmap(one))
            kernel = blackjax.nuts.build_kernel()

            def step(state: Any, key: Any, step_size: Any, inverse_mass: Any) -> Any:
                return kernel(
                    key, state, self.log_density, step_size, inverse_mass, max_num_doublings=depth
                )

            def scanned(states: Any, keys: Any, step_size: Any, inverse_mass: Any) -> Any:
                def body(states: Any, keys: Any) -> Any:
                    states, info = jax.vmap(step)(states, keys, step_size, inverse_mass)
                    info_of_draw = (
                        info.num_integration_steps,
                        info.is_divergent,
                        info.acceptance_rate,
                    )
                    return states, (states.position, *info_of_draw)

                return jax.lax.scan(body, states, keys)

            self._run_sampling = jax.jit(scanned)
        self._chains = chains
        keys = jax.random.split(jax.random.fold_in(self._keys, 0), chains)
        (self._states, self._step_size, self._inverse_mass, info), seconds, compiling = (
            self.clock.timed(lambda: self._run_adaptation(keys, self.starts[seed][:chains]))
        )
        steps = np.asarray(info.num_integration_steps)
        return {
            "seconds": seconds,
            "busy_seconds": self.clock.busy,
            "compile_seconds": compiling,
            "steps": int(steps.sum()),
            "lane_steps": int(steps.max(0).sum()) * chains,
            "step_size": np.asarray(self._step_size).tolist(),
        }

    def sample(self, draws: int) -> tuple[Answer, np.ndarray]:
        import jax

        self._keys, key = jax.random.split(self._keys)
        keys = jax.random.split(key, (draws, self._chains))
        (self._states, info_of_draw), seconds, compiling = self.clock.timed(
            lambda: self._run_sampling(self._states, keys, self._step_size, self._inverse_mass)
        )
        positions, steps, diverging, accepted = (
            np.asarray(array).swapaxes(0, 1) for array in info_of_draw
        )
        return sampled(seconds, self.clock.busy, compiling, steps, diverging, accepted), positions


class BlackJaxMCLMC(_Jax):
    """Run blackjax.mclmc (steps of minimal norm) per chain with a fixed step size.

    A draw has `STEPS_PER_DRAW` steps. `depth` and `accept` do not apply.
    """

    def warmup(
        self, *, seed: int, chains: int, iterations: int, draws: int, depth: int, accept: float
    ) -> Answer:
        import blackjax
        import jax
        import jax.numpy as jnp

        starts = self.starts[seed][:chains]
        radius = float(np.sqrt(starts.shape[1]))
        self._keys = jax.random.key(seed)
        if chains != getattr(self, "_chains", None):
            self._chains = chains
            sampler = blackjax.mclmc(
                self.log_density, L=radius, step_size=_MCLMC_STEP_SIZE * radius
            )

            def step(state: Any, key: Any) -> Any:
                state, info = sampler.step(key, state)
                return state, info.energy_change

            def draw(state: Any, key: Any) -> Any:
                state, errors = jax.lax.scan(step, state, jax.random.split(key, STEPS_PER_DRAW))
                diverging = ~jnp.isfinite(errors).all()
                return state, (state.position, diverging, jnp.exp(-jnp.maximum(errors, 0)).mean())

            self._init = jax.jit(jax.vmap(sampler.init))
            self._run_sampling = jax.jit(
                lambda states, keys: jax.lax.scan(jax.vmap(draw), states, keys)
            )
        self._states = self._init(starts, self._next_keys(()))
        _, seconds, compiling = self.clock.timed(lambda: self._draw(iterations))
        steps = 2 * STEPS_PER_DRAW * iterations * chains
        return {
            "seconds": seconds,
            "busy_seconds": self.clock.busy,
            "compile_seconds": compiling,
            "steps": steps,
            "lane_steps": steps,
            "step_size": [_MCLMC_STEP_SIZE] * chains,
        }

    def sample(self, draws: int) -> tuple[Answer, np.ndarray]:
        found, seconds, compiling = self.clock.timed(lambda: self._draw(draws))
        positions, diverging, accepted = (np.asarray(array).swapaxes(0, 1) for array in found)
        steps = np.full(diverging.shape, 2 * STEPS_PER_DRAW)
        return sampled(seconds, self.clock.busy, compiling, steps, diverging, accepted), positions

    def _draw(self, draws: int) -> Any:
        self._states, found = self._run_sampling(self._states, self._next_keys((draws,)))
        return found

    def _next_keys(self, shape: tuple[int, ...]) -> Any:
        import jax

        self._keys, key = jax.random.split(self._keys)
        return jax.random.split(key, (*shape, self._chains))


def sampled(
    seconds: float, busy: float, compiling: float, steps: Any, diverging: Any, accepted: Any
) -> Answer:
    """Return a worker's answer about draws; `lane_steps` includes steps of finished chains."""
    return {
        "seconds": seconds,
        "busy_seconds": busy,
        "compile_seconds": compiling,
        "steps": int(steps.sum()),
        "lane_steps": int(steps.max(0).sum()) * len(steps),
        "steps_per_draw": float(steps.mean()),
        "divergences": int(diverging.sum()),
        "acceptance": float(accepted.mean()),
    }

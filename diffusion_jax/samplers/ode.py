"""The probability flow solved by diffrax, with steps as small as an error bound asks for.

    dx/dt = alpha'(t) x0 + sigma'(t) noise                                              (1)

Needs the extra `ode`: pip install 'diffusion_jax[ode]'.

Source: Song et al. 2021 (arXiv:2011.13456), equation (13); Kidger 2021 (arXiv:2202.02435).
"""

import importlib.util
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from diffusion_jax.processes import expand
from diffusion_jax.sde import probability_flow
from diffusion_jax.types import Denoiser, Scalar


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["rtol", "atol", "margin"],
    meta_fields=["solver", "max_steps"],
)
@dataclass(frozen=True)
class Adaptive:
    """Equation (1) from t to s, adaptively: a grid of [1, 0] is enough.

    One choice of steps serves the batch, with the root mean square of its error, so that an
    example depends on its batch within the tolerance. Where alpha_t = 0 or sigma_s = 0 the flow
    has no value to compute at that very end: a share `margin` of the way there is a DDIM step.

    Attributes:
        rtol: relative error allowed in a step of the solver. Traced.
        atol: absolute error allowed, in units of x. Traced.
        margin: share of the step that is made by DDIM at such an end. Traced.
        solver: a diffrax solver; Tsit5() by default.
        max_steps: a walk that needs more raises an error.
    """

    rtol: Scalar = 1e-4
    atol: Scalar = 1e-4
    margin: Scalar = 1e-3
    solver: Any = None
    max_steps: int = 4096
    draws = 0

    def init(self, x: Array, times: Array) -> tuple[()]:
        if importlib.util.find_spec("diffrax") is None:
            raise ModuleNotFoundError("Adaptive needs diffrax: pip install 'diffusion_jax[ode]'")
        return ()

    def step(self, x, state, t, s, denoiser: Denoiser, process, noise):
        import diffrax  # an extra

        def flow(u, x, _):
            time = first + u * (last - first)
            rate = probability_flow(process, time, x, denoiser(x, time))
            return expand(last - first, x) * rate

        def ddim(x, t, s):
            x0, predicted, _ = denoiser(x, t)
            return jnp.where(expand(t == s, x), x, process.corrupt(x0, predicted, s))

        reach = self.margin * (s - t)
        alpha_t, _ = process.scales(t, x)
        _, sigma_s = process.scales(s, x)
        first = jnp.where(jnp.any(alpha_t == 0), t + reach, t)
        last = jnp.where(jnp.any(sigma_s == 0), s - reach, s)
        x = ddim(x, t, first)
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(flow),
            diffrax.Tsit5() if self.solver is None else self.solver,
            t0=0.0,
            t1=1.0,
            dt0=None,
            y0=x,
            stepsize_controller=diffrax.PIDController(rtol=self.rtol, atol=self.atol),
            max_steps=self.max_steps,
        )
        assert solution.ys is not None
        return ddim(solution.ys[0], last, s), state

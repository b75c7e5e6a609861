"""Samplers: each moves x from t to s; `sample` is the loop.

A new one is a file here and its line below; the curated names are in `diffusion_jax` too.
"""

from diffusion_jax.samplers.ancestral import Ancestral as Ancestral
from diffusion_jax.samplers.cold import ColdImproved as ColdImproved
from diffusion_jax.samplers.cold import ColdNaive as ColdNaive
from diffusion_jax.samplers.consistency import Consistency as Consistency
from diffusion_jax.samplers.ddim import DDIM as DDIM
from diffusion_jax.samplers.deis import DEIS as DEIS
from diffusion_jax.samplers.dpm_solver import DPMSolverPP as DPMSolverPP
from diffusion_jax.samplers.dpm_solver import published_third as published_third
from diffusion_jax.samplers.dpm_solver_single import DPMSolverPPSingle as DPMSolverPPSingle
from diffusion_jax.samplers.edm import Churn as Churn
from diffusion_jax.samplers.euler import Euler as Euler
from diffusion_jax.samplers.euler_maruyama import EulerMaruyama as EulerMaruyama
from diffusion_jax.samplers.exponential import exact as exact
from diffusion_jax.samplers.exponential import midpoint as midpoint
from diffusion_jax.samplers.heat import Heat as Heat
from diffusion_jax.samplers.heun import Heun as Heun
from diffusion_jax.samplers.langevin import ConstantRate as ConstantRate
from diffusion_jax.samplers.langevin import Langevin as Langevin
from diffusion_jax.samplers.langevin import SignalToNoise as SignalToNoise
from diffusion_jax.samplers.loop import draw_prior as draw_prior
from diffusion_jax.samplers.loop import sample as sample
from diffusion_jax.samplers.mean_shift import MeanShift as MeanShift
from diffusion_jax.samplers.momentum import Momentum as Momentum
from diffusion_jax.samplers.ode import Adaptive as Adaptive
from diffusion_jax.samplers.pndm import PLMS as PLMS
from diffusion_jax.samplers.pndm import PNDM as PNDM
from diffusion_jax.samplers.predictor_corrector import PredictorCorrector as PredictorCorrector
from diffusion_jax.samplers.unipc import UniPC as UniPC
from diffusion_jax.samplers.unipc import bh1 as bh1
from diffusion_jax.samplers.unipc import bh2 as bh2

"""Samplers by name: every name is one, and a flag out of place is named."""

from typing import get_args

import pytest

import diffusion_jax as dj
from diffusion_jax.training.recipes import build, find_recipe, load_recipe
from diffusion_jax.training.sampler_cli import (
    COLD,
    GAUSSIAN,
    GridName,
    SamplerName,
    choose_grid,
    choose_sampler,
)
from diffusion_jax.types import Sampler


def experiment(recipe="digits"):
    return build(load_recipe(find_recipe(recipe)), {}, recipe)


@pytest.mark.parametrize("name", get_args(SamplerName))
def test_every_name_is_a_sampler(name):
    recipe = "digits_cold" if name in COLD else "digits_heat" if name == "heat" else "digits"
    assert isinstance(choose_sampler(experiment(recipe), name, {}), Sampler)


def test_the_flags_know_every_maker():
    assert {"recipe", *COLD, *GAUSSIAN} == set(get_args(SamplerName))


def test_flags_reach_their_sampler():
    digits = experiment()
    assert choose_sampler(digits, "unipc", {"order": 3, "eta": None}) == dj.UniPC(3)
    assert choose_sampler(digits, "recipe", {"eta": 0.5}) == dj.DDIM(0.5)
    assert choose_sampler(digits, "ancestral", {"variance": "fixed_large"}) == dj.Ancestral(
        dj.fixed_large
    )


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("heun", {"eta": 0.5}, "--eta is 0.5; it belongs to --sampler ddim or dpm_solver or"),
        ("ddim", {"order": 2}, "--order is 2; it belongs to --sampler dpm_solver or"),
        ("ddim", {"eta": -1.0}, "--eta is -1.0; it must be a number from 0 to 1"),
        ("ddim", {"eta": 5.0}, "--eta is 5.0; it must be a number from 0 to 1"),
        ("ddim", {"eta": float("nan")}, "--eta is nan"),
        ("heat", {}, "--sampler heat doesn't go with this recipe, whose x_1 comes from FromNoise"),
        ("edm", {"churn": float("inf")}, "--churn is inf"),
    ],
)
def test_what_does_not_fit_is_named(name, flags, message):
    with pytest.raises(ValueError, match=message):
        choose_sampler(experiment(), name, flags)


def test_only_cold_samplers_and_its_own_go_with_a_recipe_that_starts_from_data():
    heat = experiment("digits_heat")
    assert choose_sampler(heat, "recipe", {}) == dj.Heat(0.025)
    assert choose_sampler(heat, "recipe", {"delta": 0.5}) == dj.Heat(0.5)
    assert choose_sampler(heat, "cold_naive", {}) == dj.ColdNaive()
    with pytest.raises(ValueError, match="--sampler unipc doesn't go with this recipe"):
        choose_sampler(heat, "unipc", {})


def test_solvers_need_alpha_and_sigma():
    with pytest.raises(ValueError, match="--sampler heun needs alpha and sigma, and Cold"):
        choose_sampler(experiment("digits_cold"), "heun", {})


@pytest.mark.parametrize("name", get_args(GridName))
def test_every_grid_descends_from_the_prior_to_the_data(name):
    digits = experiment()
    times = choose_grid(digits.process, name, digits.grid)(10)
    assert times.shape == (11,) and times[-1] == 0 and (times[:-1] > times[1:]).all()


def test_a_grid_of_noise_levels_needs_some():
    with pytest.raises(ValueError, match="--grid karras needs noise levels"):
        choose_grid(experiment("digits_cold").process, "karras", dj.trailing)

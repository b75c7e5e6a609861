"""Chips and rooflines."""

import pytest

from diffusion_jax.training.chips import CHIPS, GIB, chip_of, roofline


def test_the_largest_of_the_three_binds():
    chip = CHIPS["v5e"]
    work = {"compute": chip.flops, "memory": chip.bandwidth, "links": chip.links}
    for name in work:
        amounts = [work[n] * (3.0 if n == name else 1.0) for n in work]
        least = roofline(chip, *amounts)
        assert least.bound == name and least.seconds == pytest.approx(3.0)


@pytest.mark.parametrize("name", CHIPS)
def test_peaks_are_in_units_of_one(name):
    """Operations a byte of memory, and memory's bytes a byte of links, are of this order."""
    chip = CHIPS[name]
    assert 100 < chip.flops / chip.bandwidth < 1000
    assert 2 < chip.bandwidth / chip.links < 10
    assert 0.9 * chip.memory < chip.usable < chip.memory + GIB


@pytest.mark.parametrize("topology", ["v5e:16x16", "v6e:1x1", "v4:2x2x4", "v5p:4x4x8"])
def test_topologies_are_a_chip_and_its_grid(topology):
    assert chip_of(topology).name == topology.partition(":")[0]


@pytest.mark.parametrize("topology", ["v5e", "v5e:", "v9:2x2", "v5e:16", "v5e:0x2", "v5e-256", ""])
def test_other_names_are_refused_with_one_that_would_do(topology):
    with pytest.raises(ValueError, match=r"v5e:16x16"):
        chip_of(topology)


def test_a_grid_of_other_axes_than_the_wires_is_refused():
    with pytest.raises(ValueError, match=r"wired in 3; write it as v4:4x4x4"):
        chip_of("v4:4x4")

"""Linear probes of features whose best accuracy is known, and curves under shifts."""

import jax
import numpy as np
import pytest

from diffusion_jax.data import digits
from diffusion_jax.evaluation import Probe, blur, linear_probe, noise, probe_accuracy, robustness


def clusters(seed, n, classes=4, d=8, spread=0.1):
    rng = np.random.default_rng(seed)
    centres = np.eye(classes, d)
    labels = np.arange(n) % classes
    return centres[labels] + spread * rng.normal(size=(n, d)), labels


@pytest.mark.parametrize("classes", [2, 4])
def test_separable_features_are_learnt(classes):
    probe = linear_probe(*clusters(0, 200, classes))
    features, labels = clusters(1, 200, classes)
    assert probe_accuracy(probe, features, labels) == 1.0 == probe.held_out_accuracy
    assert probe.weights.shape == (8, classes) and probe.bias.shape == (classes,)


def test_features_that_know_nothing_get_chance():
    rng = np.random.default_rng(2)
    probe = linear_probe(rng.normal(size=(400, 4)), np.arange(400) % 4, iterations=50)
    accuracy = probe_accuracy(probe, rng.normal(size=(2000, 4)), rng.integers(0, 4, 2000))
    assert abs(accuracy - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 2000)


def test_the_strength_is_chosen_where_it_matters():
    """More dimensions than pictures, nearly all noise: without regularisation it gets worse."""
    train, test = clusters(3, 120, d=400, spread=0.35), clusters(4, 1000, d=400, spread=0.35)
    probe = linear_probe(*train, iterations=200)
    assert 1e-6 < probe.c < 1e3
    assert probe_accuracy(probe, *test) > 0.6
    assert probe.held_out_accuracy == pytest.approx(probe_accuracy(probe, *test), abs=0.3)


def test_a_probe_is_a_pure_function_of_arrays():
    features, labels = clusters(0, 40)
    probe = linear_probe(features, labels, seed=3)
    again = linear_probe(features, labels, seed=3)
    for one, other in zip(probe, again, strict=True):
        np.testing.assert_array_equal(one, other)
    inside = jax.jit(lambda probe, x: probe(x))(probe, features.astype(np.float32))
    np.testing.assert_allclose(inside, probe(features.astype(np.float32)), rtol=1e-5, atol=1e-5)


def test_the_order_of_pictures_only_moves_who_is_held_out():
    features, labels = clusters(5, 200)
    p = np.random.default_rng(0).permutation(200)
    one, other = linear_probe(features, labels), linear_probe(features[p], labels[p])
    assert one.c == other.c  # all strengths that separate are equal: the strongest
    np.testing.assert_allclose(one.weights, other.weights, atol=1e-3)


@pytest.mark.parametrize(
    ("features", "labels", "options", "sentence"),
    [
        (np.ones((4, 2)), np.zeros(4, int), {}, "at least two classes"),
        (np.ones((4, 2)), np.array([0, 2, 0, 2]), {}, r"without a gap, not \[0, 2\]"),
        (np.ones((4, 2)), np.array([0, 1, 0]), {}, "4 images, but 3 labels"),
        (np.full((4, 2), np.nan), np.array([0, 1, 0, 1]), {}, "row 0 isn't"),
        (np.ones((4, 2)), np.array([0, 1, 0, 1]), {}, "at most 2 pictures holds none"),
        (np.ones((4, 2)), np.array([0, 1, 0, 3 * 10**8]), {}, r"without a gap, not \[0, 1, 3000"),
        (np.ones((4, 2)), np.array([0.0, 1.0, 0.0, 1.0]), {}, r"integers \[n\], not float64 \[4\]"),
        (
            np.ones((4, 2)),
            np.array([[0], [1], [0], [1]]),
            {},
            r"integers \[n\], not int64 \[4, 1\]",
        ),
        (np.ones(4), np.array([0, 1, 0, 1]), {}, r"features must be \[n, d\], not \[4\]"),
        (np.ones((4, 2)), np.array([0, 1, 0, 1]), {"held_out": 1.0}, r"must be in \(0, 1\)"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_refusals(features, labels, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        linear_probe(features, labels, **options)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("features", "labels", "sentence"),
    [
        (np.ones((2, 3)), np.array([[0], [1]]), r"must be integers \[n\], not int64 \[2, 1\]"),
        (np.ones((2, 3)), np.array([0.0, np.nan]), r"must be integers \[n\], not float64 \[2\]"),
        (np.ones((2, 3)), np.array([0, 2]), r"must lie in 0\.\.1, got 2 at index 1"),
        (np.full((2, 3), np.nan), np.array([0, 1]), "row 0 isn't"),
        (np.ones((2, 4)), np.array([0, 1]), r"reads features \[n, 3\], not \[2, 4\]"),
        (np.ones((0, 3)), np.zeros(0, int), "0 images have no accuracy"),
    ],
)
def test_accuracies_of_what_is_no_features_and_no_labels_are_refused(features, labels, sentence):
    probe = Probe(np.ones((3, 2), np.float32), np.zeros(2, np.float32), 1.0, 1.0)
    with pytest.raises(ValueError, match=sentence):
        probe_accuracy(probe, features, labels)


def test_curves_begin_at_the_clean_accuracy_and_fall():
    train, test = (
        (
            np.stack([source[i]["image"] for i in range(400)]),
            np.array([source[i]["label"] for i in range(400)]),
        )
        for source in (digits("train"), digits("test"))
    )

    def features(pixels):
        return pixels.reshape(len(pixels), -1)

    probe = linear_probe(features(train[0] / 127.5 - 1), train[1], iterations=30)
    clean = probe_accuracy(probe, features(test[0] / 127.5 - 1), test[1])
    assert clean > 0.85

    def accuracy(pixels):
        assert pixels.dtype == np.float32 and np.abs(pixels).max() <= 1
        return probe_accuracy(probe, features(pixels), test[1])

    shifts = {"noise": noise(1), "blur": blur, "dark": lambda x, s: x - s}
    strengths = {"noise": (0.0, 0.3, 1.0), "blur": (0.0, 0.5, 3.0), "dark": (0.0, 2.0)}
    curves = robustness(accuracy, test[0], shifts, strengths)
    assert list(curves) == ["noise", "blur", "dark"]
    for name, curve in curves.items():
        assert list(curve) == list(strengths[name])
        assert curve[0.0] == pytest.approx(clean, abs=1e-9)
        assert curve[strengths[name][-1]] < clean - 0.1
    assert curves["dark"][2.0] < 0.25  # black pictures have one answer
    assert clean >= curves["noise"][0.3] > curves["noise"][1.0]
    again = robustness(accuracy, test[0], {"noise": noise(1)}, (0.3,))
    assert again["noise"][0.3] == curves["noise"][0.3]  # its noise is its seed's


def test_blur_keeps_the_mean_and_noise_has_the_strength():
    images = np.random.default_rng(0).uniform(-1, 1, (3, 32, 32, 1)).astype(np.float32)
    np.testing.assert_allclose(blur(images, 2.0).mean((1, 2)), images.mean((1, 2)), atol=1e-4)
    assert blur(images, 2.0).std() < 0.2 * images.std()
    assert (noise()(images, 0.5) - images).std() == pytest.approx(0.5, rel=0.05)


def test_shifts_that_break_pictures_are_refused():
    images = np.zeros((2, 4, 4, 1), np.uint8)
    for shift, strengths, sentence in (
        (lambda x, s: x[:1], (1.0,), r"at 1 made \[1, 4, 4, 1\] of \[2, 4, 4, 1\]"),
        (lambda x, s: x * np.nan, (1.0,), "aren't finite"),
        (lambda x, s: x, {"other": (1.0,)}, "no strengths for the shift 'mine'"),
        (lambda x, s: x, {"mine": (1.0,), "other": (1.0,)}, "'other', and the shifts are mine"),
        (blur, (-1.0,), "strength of blur must be at least 0 and finite, not -1.0"),
        (blur, (np.nan,), "not nan"),
        (blur, (np.inf,), "not inf"),
        (noise(), (-1.0,), "strength of noise must be at least 0"),
    ):
        with pytest.raises(ValueError, match=sentence):
            robustness(lambda x: 0.0, images, {"mine": shift}, strengths)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_shifted_are_pictures_and_some(dtype):
    for shape, sentence in (((4, 4, 1), r"must be \[n, h, w, c\], not"), ((0, 4, 4, 1), "no pict")):
        with pytest.raises(ValueError, match=sentence):
            robustness(lambda x: 0.0, np.zeros(shape, dtype), {"blur": blur}, (0.0,))

"""Classes by their names: ensembles, accuracy, chance."""

import numpy as np
import pytest

from diffusion_jax.evaluation import class_embeddings, zero_shot_accuracy, zero_shot_predictions

NAMES = ("cat", "dog", "{owl}", "fish", "ant", "bee")


class Encoder:
    """Gives each text a random direction of its own, and counts calls."""

    def __init__(self):
        self.known, self.rng, self.calls = {}, np.random.default_rng(0), []

    def __call__(self, texts):
        self.calls.append(list(texts))
        for text in texts:
            if text not in self.known:
                row = self.rng.normal(size=24)
                self.known[text] = row / np.linalg.norm(row)
        return np.stack([self.known[text] for text in texts]).astype(np.float32)


def test_one_template_is_the_encoder_itself():
    encode = Encoder()
    found = class_embeddings(encode, NAMES)
    assert encode.calls[0][2] == "a photo of a {owl}."
    np.testing.assert_allclose(found, encode([f"a photo of a {n}." for n in NAMES]), atol=1e-6)


def test_an_ensemble_is_of_unit_length_and_as_near_to_each_of_its_texts_as_they_allow():
    encode, templates = Encoder(), ("a {}.", "the {}!", "{}")
    found = class_embeddings(encode, NAMES, templates)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-12)
    for row, name in zip(found, NAMES, strict=True):
        texts = encode([t.replace("{}", name) for t in templates])
        # Of all unit vectors, the mean's direction has the largest sum of cosines.
        others = np.random.default_rng(1).normal(size=(500, 24))
        others /= np.linalg.norm(others, axis=1, keepdims=True)
        assert (texts @ row).sum() > (others @ texts.T).sum(1).max()
        nudged = row + 0.01 * others
        nudged /= np.linalg.norm(nudged, axis=1, keepdims=True)
        assert (texts @ row).sum() > (nudged @ texts.T).sum(1).max()


def test_batches_and_the_order_of_templates_are_nothing():
    encode, templates = Encoder(), ("a {}.", "the {}!", "{}")
    whole = class_embeddings(encode, NAMES, templates)
    encode.calls.clear()
    parts = class_embeddings(encode, NAMES, templates[::-1], batch=4)
    assert max(map(len, encode.calls)) == 4
    np.testing.assert_allclose(whole, parts, atol=1e-6)


def test_pictures_that_lie_on_their_class_are_always_right():
    classes = class_embeddings(Encoder(), NAMES)
    labels = np.random.default_rng(1).integers(0, 6, 40)
    found = zero_shot_accuracy(classes[labels], classes, labels)
    assert found.found == {1: 1.0, 5: 1.0}
    assert found.chance == pytest.approx({1: 1 / 6, 5: 5 / 6})
    predicted = zero_shot_predictions(classes[labels], classes, 3)
    assert predicted.shape == (40, 3) and np.all(predicted[:, 0] == labels)
    assert all(len(set(row)) == 3 for row in predicted.tolist())


def test_accuracy_counts_the_predictions_and_random_ones_get_chance():
    rng = np.random.default_rng(2)
    classes = class_embeddings(Encoder(), NAMES)
    images = rng.normal(size=(2000, 24))
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    labels = rng.integers(0, 6, 2000)
    found = zero_shot_accuracy(images, classes, labels)
    for k, rate in found.found.items():
        hits = (zero_shot_predictions(images, classes, k) == labels[:, None]).any(1)
        assert rate == pytest.approx(hits.mean())
        expected = found.chance[k]
        assert abs(rate - expected) < 4 * np.sqrt(expected * (1 - expected) / 2000)


def test_classes_that_are_alike_share_their_pictures():
    row = np.eye(1, 24)
    alike = row.repeat(4, 0)
    found = zero_shot_accuracy(row.repeat(8, 0), alike, np.zeros(8, int), top=(1, 2))
    assert found.found == pytest.approx({1: 0.25, 2: 0.5})


@pytest.mark.parametrize(
    ("names", "templates", "sentence"),
    [
        ((), ("{}",), "not 0 names"),
        (NAMES, ("a photo",), r"templates \['a photo'\]"),
        (("cat", "cat"), ("{}",), "must differ"),
        ("cat", ("{}",), "names must be a sequence of texts, not the text 'cat'"),
        (NAMES, "a {}", "templates must be a sequence of texts, not the text 'a {}'"),
    ],
)
def test_refusals(names, templates, sentence):
    with pytest.raises(ValueError, match=sentence):
        class_embeddings(Encoder(), names, templates)


def test_refuses_templates_that_cancel_out_and_labels_out_of_range():
    def opposite(texts):
        return np.array([[1.0 if t.startswith("a") else -1.0, 0.0] for t in texts])

    with pytest.raises(ValueError, match="the templates of 'cat' cancel out"):
        class_embeddings(opposite, ["cat"], ("a {}", "the {}"))
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.3, got 4"):
        zero_shot_accuracy(np.eye(4), np.eye(4), np.array([0, 1, 2, 4]), top=(1,))
    with pytest.raises(ValueError, match=r"top must be in 1\.\.4"):
        zero_shot_predictions(np.eye(4), np.eye(4), 5)


@pytest.mark.parametrize("batch", [0, -1])
def test_refuses_a_batch_of_none(batch):
    with pytest.raises(ValueError, match=f"batch must be at least 1, not {batch}"):
        class_embeddings(Encoder(), NAMES, batch=batch)


def test_refuses_classes_of_other_dimensions():
    with pytest.raises(ValueError, match=r"images \[4, 4\] and classes \[3, 3\] must be"):
        zero_shot_predictions(np.eye(4), np.eye(3), 1)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (np.array([0.9, 1.0, 2.0, 3.0]), r"integers \[n\], not float64 \[4\]"),
        (np.array([0.0, np.nan, 2.0, 3.0]), r"integers \[n\], not float64 \[4\]"),
        (np.array([0, 1, 2, 2**32 + 1]), r"must lie in 0\.\.3, got 4294967297 at index 3"),
        (np.arange(4)[:, None], r"integers \[n\], not int64 \[4, 1\]"),
    ],
)
def test_refuses_what_is_no_label(labels, sentence):
    with pytest.raises(ValueError, match=sentence):
        zero_shot_accuracy(np.eye(4), np.eye(4), labels, top=(1,))

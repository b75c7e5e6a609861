"""Judges learn pictures, repeat themselves from a key, survive a file, refuse bad input."""

import jax
import numpy as np
import pytest

from diffusion_jax.data import flip
from diffusion_jax.evaluation import (
    ConvClassifier,
    digits_judge,
    evaluate_frechet,
    load_classifier,
    save_classifier,
    train_classifier,
)

SMALL = ConvClassifier(classes=3, features=16, width=4)


def bars(seed, n):
    """Bright bars in noise: horizontal, vertical, or none. Separable, but not by one pixel."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 128, (n, 9, 8, 1)).astype(np.uint8)
    labels = rng.integers(0, 3, n)
    for image, label in zip(images, labels, strict=True):
        place = rng.integers(1, 7)
        if label == 0:
            image[place] = 255
        elif label == 1:
            image[:, place] = 255
    return images, labels


def train(seed=0, **changes):
    images, labels = bars(0, 300)
    settings = dict(classes=3, epochs=15, batch_size=32, learning_rate=1e-2, module=SMALL)
    return train_classifier(jax.random.key(seed), images, labels, **(settings | changes))


@pytest.fixture(scope="module")
def classifier():
    return train(augment=flip())


def test_learns_what_it_has_not_seen(classifier):
    images, labels = bars(1, 200)
    assert classifier.accuracy(images, labels) > 0.97
    probabilities = classifier.probabilities(images)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), classifier.predict(images))


def test_the_key_decides_everything():
    fast, seen = dict(epochs=2, augment=flip()), []
    first = train(report=lambda *line: seen.append(line), **fast)
    again, other = train(**fast), train(seed=1, **fast)
    same = jax.tree.map(lambda a, b: bool((a == b).all()), first.params, again.params)
    assert all(jax.tree.leaves(same))
    assert first.feature_space("x") == again.feature_space("x")
    assert first.feature_space("x") != other.feature_space("x")
    assert [line[:2] for line in seen] == [(1, 2), (2, 2)] and seen[1][2] < seen[0][2]


def test_one_picture_reads_the_same_alone_as_among_many(classifier):
    """Also over the edge of a chunk, and as a float sample."""
    images, _ = bars(2, 520)
    features = classifier.features(images)
    assert features.shape == (520, 16) and features.dtype == np.float32
    np.testing.assert_array_equal(classifier.features(images[515:516]), features[515:516])
    floats = (images / 127.5 - 1).astype(np.float32)
    np.testing.assert_array_equal(classifier.features(floats), features)


def test_the_distance_in_its_features_sees_a_missing_class(classifier):
    (real, _), (same, labels) = bars(3, 400), bars(4, 600)
    space = classifier.feature_space("bars")
    assert space.dimensions == 16
    whole, dropped = (
        evaluate_frechet(classifier.features, space, images[:300], real, reference="bars")
        for images in (same, same[labels != 0])
    )
    assert 5 * whole.value < dropped.value and whole < dropped


def test_a_file_gives_the_same_classifier(classifier, tmp_path):
    path = tmp_path / "judge.npz"
    path.write_text("an older file")
    save_classifier(path, classifier)
    assert [p.name for p in tmp_path.iterdir()] == ["judge.npz"]
    loaded = load_classifier(path)
    assert loaded.feature_space("x") == classifier.feature_space("x")
    images, _ = bars(5, 10)
    np.testing.assert_array_equal(loaded.features(images), classifier.features(images))
    with pytest.raises(ValueError, match="shape"):
        loaded.predict(images[:, :8])


def test_a_failed_write_leaves_the_old_file(classifier, tmp_path, monkeypatch):
    path = tmp_path / "judge.npz"
    path.write_text("an older file")

    def full_disk(*args, **kwargs):
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_classifier(path, classifier)
    assert path.read_text() == "an older file" and len(list(tmp_path.iterdir())) == 1


def test_refuses_files_of_another_kind(classifier, tmp_path):
    path = tmp_path / "judge.npz"
    np.savez(path, weights=np.zeros(3))
    with pytest.raises(ValueError, match="not a classifier file"):
        load_classifier(path)
    save_classifier(path, classifier)
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    np.savez(path, **(arrays | {"Dense_1/bias": np.zeros(4, np.float32)}))
    with pytest.raises(ValueError, match=r"other parameters .*: Dense_1/bias"):
        load_classifier(path)
    del arrays["Conv_0/kernel"]
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=r"other parameters .*: Conv_0/kernel"):
        load_classifier(path)


def test_training_refuses_bad_input():
    images, labels = bars(0, 8)
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=r"0\.\.2, got 3 at index 2"):
        train_classifier(key, images, np.array([0, 1, 3, 0, 0, 0, 0, 0]), classes=3)
    with pytest.raises(ValueError, match="8 images, but 7 labels"):
        train_classifier(key, images, labels[:7], classes=3)
    with pytest.raises(ValueError, match="module has 3 classes"):
        train_classifier(key, images, labels, classes=4, module=SMALL)
    with pytest.raises(ValueError, match="0 images"):
        train_classifier(key, images[:0], labels[:0], classes=3)
    with pytest.raises(FloatingPointError, match="learning rate"):
        train(epochs=3, learning_rate=1e30)


def split_digits():
    datasets = pytest.importorskip("sklearn.datasets")
    digits = datasets.load_digits()
    images = np.rint(digits.images * 255 / 16).astype(np.uint8)[..., None]
    return images, digits.target


def test_the_digits_judge_reads_real_digits_it_has_not_seen():
    images, labels = split_digits()
    train, test = slice(None, 1200), slice(1200, None)
    judge = digits_judge(images[train], labels[train])
    assert judge.accuracy(images[test], labels[test]) > 0.96  # other writers than it was trained on
    floats = (images[test] / 127.5 - 1).astype(np.float32)
    np.testing.assert_array_equal(judge.predict(floats), judge.predict(images[test]))


def test_the_digits_judge_on_the_split_of_the_library():
    from diffusion_jax.data import digits

    def arrays(split):
        items = [digits(split)[i] for i in range(len(digits(split)))]
        return np.stack([item["image"] for item in items]), np.array([i["label"] for i in items])

    assert digits_judge(*arrays("train")).accuracy(*arrays("test")) >= 0.97


def test_the_digits_judge_refuses_bad_input():
    images, labels = split_digits()
    with pytest.raises(ValueError, match="two classes"):
        digits_judge(images[:5], np.zeros(5, int))
    judge = digits_judge(images[:50], labels[:50])
    with pytest.raises(ValueError, match=r"\(8, 8, 1\)"):
        judge.predict(images[:, :7])
    with pytest.raises(ValueError, match="10 images, but 9 labels"):
        judge.accuracy(images[:10], labels[:9])

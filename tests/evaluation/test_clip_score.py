"""CLIPScore of encoders whose cosines are known."""

import re

import numpy as np
import pytest

from diffusion_jax.data import pair_similarities
from diffusion_jax.evaluation import clip_score, evaluate_clip_score

ANGLES = {"same": 0.0, "right": np.pi / 2, "near": np.pi / 3, "opposite": np.pi}
COSINES = np.array([1.0, 0.0, 0.5, -1.0])


def encode_images(pixels):
    """The direction (1, 0) turned by the picture's mean."""
    angle = np.asarray(pixels).mean((1, 2, 3))
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def encode_texts(texts):
    angle = np.array([ANGLES[text.split()[-1]] for text in texts])
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def pairs(level=0.0):
    return [(np.full((2, 2, 3), level, np.float32), text) for text in ANGLES]


def test_cosines_and_scores():
    """A mean of 0 rounds to level 128, a cosine's angle of 1/255."""
    found = evaluate_clip_score(encode_images, encode_texts, iter(pairs()))
    np.testing.assert_allclose(found.cosines, COSINES, atol=0.005)
    assert found.cosine == pytest.approx(0.125, abs=0.005)
    assert found.score == pytest.approx(2.5 * 1.5 / 4, abs=0.01)
    np.testing.assert_allclose(clip_score(COSINES), [2.5, 0, 1.25, 0])
    np.testing.assert_allclose(clip_score(COSINES, w=1.0), [1, 0, 0.5, 0])


def test_batches_are_nothing_and_the_last_is_what_is_left():
    seen = []

    def spy(pixels):
        seen.append(len(pixels))
        return encode_images(pixels)

    one = evaluate_clip_score(spy, encode_texts, pairs(0.5), batch=3)
    two = evaluate_clip_score(spy, encode_texts, pairs(0.5), batch=64)
    assert seen == [3, 1, 4]
    np.testing.assert_allclose(one.cosines, two.cosines, atol=1e-6)


def test_floats_are_rounded_as_a_file_would_and_the_prefix_is_read():
    levels = [(np.full((2, 2, 3), 128, np.uint8), text) for text in ANGLES]
    texts = []

    def spy(some):
        texts.extend(some)
        return encode_texts(some)

    floats = evaluate_clip_score(encode_images, spy, pairs(1e-4), prefix="A photo depicts ")
    stored = evaluate_clip_score(encode_images, encode_texts, levels)
    np.testing.assert_array_equal(floats.cosines, stored.cosines)
    assert texts[0] == "A photo depicts same"


def test_the_encoder_sees_pixels_from_minus_1_to_1():
    seen = []

    def spy(pixels):
        seen.append(np.asarray(pixels))
        return encode_images(pixels)

    ends = [(np.full((2, 2, 3), level, np.uint8), "same") for level in (0, 255)]
    pair_similarities(spy, encode_texts, ends)
    assert seen[0].dtype == np.float32
    np.testing.assert_array_equal(seen[0][:, 0, 0, 0], [-1, 1])


def test_refusals():
    with pytest.raises(ValueError, match="no pairs"):
        evaluate_clip_score(encode_images, encode_texts, [])
    with pytest.raises(ValueError, match="embeddings of pictures must have length 1"):
        evaluate_clip_score(lambda x: 3 * encode_images(x), encode_texts, pairs())
    with pytest.raises(ValueError, match=r"embeddings of texts must be \[4, d\]"):
        evaluate_clip_score(encode_images, lambda t: encode_texts(t[:2]), pairs())
    with pytest.raises(ValueError, match="must be uint8"):
        pair_similarities(encode_images, encode_texts, iter(pairs()))
    with pytest.raises(ValueError, match="batch must be at least 1"):
        pair_similarities(encode_images, encode_texts, iter(pairs()), batch=0)


@pytest.mark.parametrize("other", [1, 3])
def test_encoders_of_other_dimensions_are_refused(other):
    def encode(texts):
        return np.eye(1, other).repeat(len(texts), 0)

    sentence = rf"pictures \[4, 2\] and of texts \[4, {other}\] must have the same d"
    with pytest.raises(ValueError, match=sentence):
        evaluate_clip_score(encode_images, encode, pairs())


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("shape", [(4, 4), (1, 4, 4, 3)])
def test_pictures_of_pairs_are_h_w_c(shape, dtype):
    pairs = [(np.zeros(shape, dtype), "same")]
    with pytest.raises(ValueError, match=rf"be \[h, w, c\], not {re.escape(str(list(shape)))}"):
        evaluate_clip_score(encode_images, encode_texts, pairs)
    if dtype is np.uint8:
        with pytest.raises(ValueError, match=r"must be uint8 \[h, w, c\], not uint8 \["):
            pair_similarities(encode_images, encode_texts, pairs)

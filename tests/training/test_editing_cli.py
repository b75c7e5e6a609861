"""sample.py's flags that say what to draw and what to edit, and what they refuse."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffusion_jax as dj
from diffusion_jax.data import SHAPES_WORDS, save_png
from diffusion_jax.data.views import mapped
from diffusion_jax.models import ClassLabels, Joined, Text, from_linen
from diffusion_jax.models.clip import CLIP, TextTransformer, VisionTransformer
from diffusion_jax.training import drawing as pictures_of
from diffusion_jax.training import known_cli
from diffusion_jax.training.contrastive import image_encoder, text_encoder
from diffusion_jax.training.known_cli import Told, known_from
from diffusion_jax.training.recipes import load_recipe
from diffusion_jax.training.sample_cli import sample_command
from diffusion_jax.training.sampling import check_known
from diffusion_jax.training.steering_cli import check_clip, check_steers, classified, told_by_clip
from tests.training import toy
from tests.training.toy import fails

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def recipe(stem):
    return load_recipe(CONFIGS / f"{stem}.py")()


def told(stem, num=3, **flags):
    return known_from(recipe(stem), num, Told(**flags), None)


@pytest.fixture
def pictures(checkout):
    """A picture, and a mask that is white on its right half."""
    levels = np.random.default_rng(0).integers(0, 256, (4, 4, 1)).astype(np.uint8)
    save_png("picture.png", levels)
    mask = np.zeros((4, 4, 1), np.uint8)
    mask[:, 2:] = 255
    save_png("mask.png", mask)
    save_png("black.png", np.zeros((4, 4, 1), np.uint8))
    save_png("large.png", np.zeros((8, 8, 1), np.uint8))
    return levels


def drawn(flags: str, num: int = 2) -> np.ndarray:
    sample_command(
        ["runs/toy", "--num", str(num), "--steps", "4", "--batch-size", "2", "--out", "out.png",
         "--npz", "out.npz", *flags.split()]
    )  # fmt: skip
    with np.load("out.npz", allow_pickle=False) as arrays:
        return arrays["pictures"]


def test_prompts_are_told_in_turn():
    found = told("shapes_captions", prompt=("a red cube", "a blue ball"))["tokens"]
    np.testing.assert_array_equal(found[[0, 1, 2]], found[[2, 1, 0]])
    np.testing.assert_array_equal(found[1], SHAPES_WORDS.encode("a blue ball"))


def test_a_layout_is_told_to_every_picture():
    found = told("shapes_layout", layout=("red cube 0 0 0.5 0.5", "cyan cone 0.5 0.5 1 1"))
    np.testing.assert_array_equal(found["box_label"], [[0, 17, -1]] * 3)
    np.testing.assert_array_equal(found["boxes"][2, 1], [0.5, 0.5, 1, 1])


def test_a_label_that_is_not_said_is_none_beside_a_flag():
    """An unrelated example's would contradict the prompt; where training drops it."""

    written = recipe("shapes_captions").source

    def labelled(record):
        return {**record, "label": 2}

    def labels(drop, **flags):
        parts = (ClassLabels(3, drop), Text(SHAPES_WORDS))
        task = dataclasses.replace(
            recipe("shapes_captions"),
            conditioning=Joined(parts),
            source=lambda split, data_dir: mapped(written(split, data_dir), labelled),
        )
        known = known_from(task, 2, Told(**flags), None)
        vector = Joined(parts).condition(known).vector
        none = Joined(parts).null(known).vector
        return known["label"].tolist(), bool((vector == none).all())

    assert labels(0.1, prompt=("a red cube",)) == ([-1, -1], True)
    assert labels(0.1, prompt=("a red cube",), label=(1,)) == ([1, 1], False)
    assert labels(0.1) == ([2, 2], False)
    assert labels(0.0, prompt=("a red cube",))[0] == [2, 2]  # -1 was never told


def test_a_map_is_told(tmp_path):
    levels = np.random.default_rng(0).integers(0, 4, (16, 16, 1)).astype(np.uint8)
    save_png(tmp_path / "map.png", levels)
    found = told("shapes_segmentation", segmentation=tmp_path / "map.png")["segmentation"]
    np.testing.assert_array_equal(found, np.broadcast_to(levels[..., 0], (3, 16, 16)))


def test_a_small_picture_is_told(tmp_path):
    levels = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    save_png(tmp_path / "small.png", levels)
    found = told("shapes_upsampling", low_resolution=tmp_path / "small.png")
    np.testing.assert_allclose(found["low"][2], levels / 127.5 - 1, atol=1e-6)
    np.testing.assert_array_equal(found["level"], 0.0)


@pytest.mark.parametrize("stem", ["shapes_captions", "shapes_layout", "shapes_inpainting"])
def test_what_is_not_said_comes_from_held_out_examples(stem):
    experiment, found = recipe(stem), told(stem)
    blank = experiment.conditioning.blank((3, *experiment.image_shape))
    assert {k: np.shape(v) for k, v in found.items()} == {k: np.shape(v) for k, v in blank.items()}
    assert any(np.any(v[0] != v[1]) for v in found.values())


@pytest.mark.parametrize(
    "stem, flags, message",
    [
        ("shapes_captions", {"prompt": ("a read cube",)}, "no word 'read'; did you mean 'red'"),
        ("shapes_captions", {"prompt": ("a " * 30,)}, "has 30 words"),
        ("shapes_captions", {"label": (3,)}, "--label was given.* it reads --prompt"),
        ("digits", {"prompt": ("a red cube",)}, "--prompt was given.* it reads --label"),
        (
            "shapes_layout",
            {"layout": ("red cube 0 0 1",)},
            'a name and four numbers, in quotes: "red cube',
        ),
        ("shapes_layout", {"layout": ("pink cube 0 0 1 1",)}, "no 'pink cube' is known; .*red cu"),
        ("shapes_layout", {"layout": ("red cube 0.5 0 0.2 1",)}, "0 <= X0 < X1 <= 1"),
        ("shapes_layout", {"layout": ("red cube 0 0 1 nan",)}, "0 <= X0 < X1 <= 1"),
        ("shapes_layout", {"layout": ("red cube 0 0 1 1",) * 4}, "has 4 boxes; this model takes 3"),
        ("shapes_segmentation", {"segmentation": Path("none.png")}, "No such file"),
        ("digits", {"inpaint": Path("a.png")}, "--inpaint and --mask go together"),
        ("digits", {"mask": Path("a.png")}, "--inpaint and --mask go together"),
    ],
)
def test_what_can_not_be_told_is_refused(stem, flags, message):
    with pytest.raises((ValueError, OSError), match=message):
        told(stem, **flags)


def test_inpainting_leaves_the_known_pixels_exactly_as_they_were(pictures):
    for flags in ("", " --resamples 3 --sampler ancestral"):
        found = drawn("--inpaint picture.png --mask mask.png --guidance 1" + flags)
        levels = np.rint((found + 1) * 127.5).astype(np.uint8)
        np.testing.assert_array_equal(levels[:, :, :2], np.stack([pictures, pictures])[:, :, :2])
        known = known_cli.in_range(pictures)[:, :2]
        np.testing.assert_array_equal(found[:, :, :2], np.stack([known, known]))
        assert np.any(levels[0] != levels[1]) and np.any(levels[0] != pictures)


def test_little_strength_changes_a_picture_little(pictures):
    known = known_cli.in_range(pictures)
    little, much = (
        np.abs(drawn(f"--init-image picture.png --strength {s} --guidance 1") - known).mean()
        for s in (0.02, 0.9)
    )
    assert little < 0.05 < much


def test_a_picture_is_changed_a_little_in_a_hole(pictures):
    known = known_cli.in_range(pictures)
    edit = "--init-image picture.png --strength 0.02 --inpaint picture.png --mask mask.png"
    change = np.abs(drawn(edit + " --guidance 1") - known)
    assert change[:, :, :2].max() == 0 and 0 < change[:, :, 2:].mean() < 0.05


def drawing(monkeypatch, batches):
    """What sample.py makes of these batches of pictures."""
    monkeypatch.setattr(pictures_of, "sample_batches", lambda *_: batches())
    return pictures_of.draw(toy.recipe(), (), dj.DDIM(), {"label": np.zeros(4)})


def test_pictures_that_are_not_finite_are_not_written(monkeypatch):
    def batches():
        yield np.zeros((2, 4, 4, 1))
        yield np.array([0.0, np.nan]).reshape(2, 1, 1, 1) * np.ones((1, 4, 4, 1))

    with pytest.raises(FloatingPointError, match="picture 3 isn't finite, so nothing is written"):
        drawing(monkeypatch, batches)


def test_variations_of_a_picture_differ(pictures):
    found = drawn("--init-image picture.png --strength 0.5 --label 1 --guidance 2")
    assert np.any(found[0] != found[1])


@pytest.mark.parametrize(
    "flags, message",
    [
        ("--init-image large.png", "--init-image: large.png has 8x8 pixels"),
        ("--init-image picture.png --strength 0", "--strength is 0.0; it must be over 0"),
        ("--init-image picture.png --strength 1.5", "--strength is 1.5; it must be over 0"),
        ("--interval 0.8 0.2", "--interval is 0.8 0.2; it must be 0 <= LOW < HIGH <= 1"),
        ("--rescale 2", "--rescale is 2; it must be from 0 to 1"),
        ("--strength 0.5", "--strength was given, but it belongs to --init-image"),
        ("--resamples 2", "--resamples was given, but it belongs to --inpaint"),
        ("--classifier-scale 2", "--classifier-scale was given, but it belongs to --classifier"),
        ("--inpaint picture.png", "--inpaint and --mask go together"),
        ("--inpaint picture.png --mask large.png", "--mask: large.png has 8x8 pixels"),
        ("--inpaint picture.png --mask black.png", "--mask black.png is all black"),
        ("--inpaint picture.png --mask mask.png --resamples 0", "--resamples is 0"),
        ("--inpaint nowhere.png --mask mask.png", "No such file or directory: 'nowhere.png'"),
        ("--init-image configs/toy.py", "configs/toy.py is no picture that can be read"),
        ("--inpaint picture.png --mask mask.png --resamples 2 --steps 1", "--steps 1 is too few"),
        ("--interval 0.2 0.8 --guidance 1", "--interval was given, but gamma is 1"),
        ("--rescale 0.5 --guidance 1", "--rescale was given, but gamma is 1"),
        ("--label 99999999999", "--label 99999999999 is out of range"),
        ("--clip-text cat", "--clip-text was given, but it belongs to --clip"),
        ("--clip-scale 2", "--clip-scale was given, but it belongs to --clip"),
        ("--clip runs/toy", "--clip needs a text: --clip-text"),
        ("--clip runs/toy --clip-text cat", "--clip runs/toy is no CLIP"),
        ("--clip runs/toy --clip-text cat --classifier runs/toy", "both steer"),
        ("--classifier runs/toy", "--classifier runs/toy is no classifier"),
        ("--guidance nan", "--guidance is nan; it must be a finite number of 32 bits"),
        ("--guidance 1e39", "--guidance is 1e+39; it must be a finite number of 32 bits"),
        ("--seed -1", "--seed is -1; it must be from 0 to 4294967295"),
        ("--seed 4294967296", "--seed is 4294967296; it must be from 0 to 4294967295"),
        ("--num 1000000000000000", "there isn't enough memory"),
        ("--out .", "can't write .: it is a folder"),
        ("--npz out.png", "--out and --npz are both out.png"),
        ("--prompt hello", "--prompt was given, but this model doesn't read it; it reads --label"),
        ("--classifier nowhere", "nowhere is no run folder"),
    ],
)
def test_sample_refuses(pictures, capsys, flags, message):
    Path("out.png").unlink(missing_ok=True)
    said = fails(sample_command, ["runs/toy", "--out", "out.png", *flags.split()], capsys)
    assert message in said
    assert not Path("out.png").exists()


def test_a_model_that_does_not_start_from_noise_is_not_edited():
    experiment = recipe("digits_cold")
    from diffusion_jax.training.editing_cli import started_from

    with pytest.raises(ValueError, match="--init-image needs a model that starts from noise"):
        started_from(experiment, Path("any.png"), 0.5)


def test_a_classifier_steers_to_the_label():
    """The gradient of a classifier that loves bright pictures for class 1 makes them brighter."""
    experiment = toy.recipe()

    def logits(params, x, t, condition):
        bright = x.mean((1, 2, 3))
        return jnp.stack([-bright, bright], axis=1) * 20

    model = dataclasses.replace(experiment, model=experiment.model._replace(apply=logits))
    steered = classified(experiment, model, (), 1.0)
    params = experiment.init_params(jax.random.key(0))
    x, t = jnp.zeros((2, 4, 4, 1)), jnp.full(2, 0.5)
    known = {"label": jnp.array([0, 1])}

    @jax.jit
    def change_of(x, t):
        return [e.denoiser(params, known, None)(x, t).x0 for e in (steered, experiment)]

    x0, plain = change_of(x, t)
    change = np.asarray(x0 - plain).mean((1, 2, 3))
    assert change[0] < -0.01 and change[1] > 0.01


def test_a_classifier_of_other_noise_is_refused():
    experiment = toy.recipe()
    other = dataclasses.replace(experiment, process=dj.Gaussian(dj.LinearBeta()))
    with pytest.raises(ValueError, match="its noise must be the same"):
        classified(experiment, other, (), 1.0)
    other = dataclasses.replace(experiment, image_shape=(8, 8, 1), model=from_linen(toy.Tiny(4)))
    with pytest.raises(ValueError, match=r"pictures of \(8, 8, 1\)"):
        classified(experiment, other, (), 1.0)


def test_an_unconditional_model_may_be_steered_to_labels():
    experiment = dataclasses.replace(toy.recipe(), conditioning=ClassLabels(0))
    known = {"label": np.array([1])}
    with pytest.raises(ValueError, match="knows no labels"):
        check_known(experiment, known, 1.0)
    check_known(classified(experiment, experiment, (), 1.0), known, 1.0)


def test_labels_that_a_classifier_does_not_know_are_refused():
    """Inside jit a label of -1 would be the last class."""
    classifier = recipe("fashion_mnist_classifier")
    check_steers(classifier, {"label": np.array([0, 9])})
    for known, said in (({"label": np.array([3, -1])}, "none"), ({}, "none"),
                        ({"label": np.array([10])}, "10")):  # fmt: skip
        with pytest.raises(ValueError, match=rf"labels 0\.\.9, and {said} was asked for"):
            check_steers(classifier, known)


def test_a_grid_that_is_chosen_is_the_one_that_is_edited(pictures):
    """--grid names the whole walk, of which --strength takes the end."""
    little = drawn("--init-image picture.png --strength 0.02 --grid quadratic --guidance 1")
    assert np.abs(little - known_cli.in_range(pictures)).mean() < 0.05


def test_guidance_may_be_kept_to_an_interval_and_rescaled(pictures):
    never = "--label 2 --guidance 5 --interval 0.98 0.99"  # no step of the grid lies there
    np.testing.assert_allclose(drawn(never), drawn("--label 2 --guidance 1"), atol=1e-5)
    whole, tame = drawn("--label 2 --guidance 5"), drawn("--label 2 --guidance 5 --rescale 1")
    assert np.abs(whole - tame).max() > 1e-3


def small_clip(process):
    """An untrained CLIP of the toy's pictures."""
    image = VisionTransformer(
        8, 16, layers=1, heads=1, patch=2, image_size=4, mean=(0.5,), std=(0.5,)
    )
    task = load_recipe(CONFIGS / "shapes_clip.py")(width=32, layers=1)
    clip = CLIP(image, TextTransformer(8, 32, task.length, 16, layers=1, heads=1, end=2))
    return dataclasses.replace(task, image_shape=(4, 4, 1), clip=clip, process=process)


@pytest.mark.parametrize("noised", [False, True])
def test_a_clip_steers_to_its_text(noised):
    experiment = toy.recipe()
    params = experiment.init_params(jax.random.key(0))
    clip = small_clip(experiment.process if noised else None)
    check_clip(experiment, clip)
    own = jax.jit(clip.init_params)(jax.random.key(1))
    text = text_encoder(clip, own)(["a red cube"])[0]
    x = jax.random.normal(jax.random.key(2), (4, 4, 4, 1))

    def similarity(scale):
        steered = told_by_clip(experiment, clip, own, text, scale)
        known = {"label": jnp.full((4,), -1)}
        x0 = steered.denoiser(params, known, None)(x, jnp.full((4,), 0.5)).x0
        return float((image_encoder(clip, own)(x0) @ text).mean())

    away, plain, towards = (similarity(scale) for scale in (-3.0, 0.0, 3.0))
    assert away < plain < towards


def test_a_clip_of_other_pictures_or_noise_is_refused():
    clip = small_clip(dj.Gaussian(dj.Rectified()))
    with pytest.raises(ValueError, match="its noise must be the same, or none"):
        check_clip(toy.recipe(), clip)
    with pytest.raises(ValueError, match=r"--clip is for pictures of \(8, 8, 1\)"):
        check_clip(toy.recipe(), dataclasses.replace(clip, image_shape=(8, 8, 1)))

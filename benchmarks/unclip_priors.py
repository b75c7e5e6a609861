"""How well priors say the embedding of a picture from its text: python benchmarks/unclip_priors.py
runs/emoji_prior runs/emoji_code_prior

On the test split, whose concepts no model has seen: the cosine of what a prior draws with the true
z_i, and how often the nearest true z_i is of the text's concept. A draw isn't the best guess, which
is the mean of many draws: both are there, beside linear regression (ridge, its strength by
cross-validation over concepts), z_t itself, and the mean of the training split.

The first table says how many principal components have which share of the embeddings' variance.
"""

from pathlib import Path

import numpy as np
import tyro

from diffusion_jax.training.platform import set_xla_flags

set_xla_flags()

from clip_runs import Split  # noqa: E402
from sklearn.linear_model import Ridge  # noqa: E402
from sklearn.model_selection import GridSearchCV, GroupKFold  # noqa: E402
from unclip_quality import prompts  # noqa: E402
from unclip_runs import clip_of, from_prior, table  # noqa: E402

from diffusion_jax.quantization import fit_codes  # noqa: E402
from diffusion_jax.training.embeddings import Embeddings, embeddings  # noqa: E402
from diffusion_jax.training.stages import load_prior  # noqa: E402

SHARES = (0.9, 0.95, 0.99, 0.995, 0.999)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def regression(said: Embeddings, concepts: np.ndarray) -> GridSearchCV:
    """z_t -> z_i, from every text of the training split."""
    texts = said.texts.reshape(-1, said.texts.shape[-1]).astype(np.float64)
    images = np.repeat(said.images, said.texts.shape[1], axis=0).astype(np.float64)
    groups = np.repeat(concepts, said.texts.shape[1])
    strengths = {"alpha": np.logspace(-2, 3, 6)}
    search = GridSearchCV(Ridge(), strengths, scoring="neg_mean_squared_error", cv=GroupKFold(5))
    return search.fit(texts, images, groups=groups)


def main(
    priors: tyro.conf.Positional[tuple[Path, ...]],
    guidance: tuple[float, ...] = (1.0,),
    draws: int = 4,
    seed: int = 0,
    data_dir: Path | None = None,
) -> None:
    """Prints the tables.

    Args:
        priors: runs, all of one CLIP.
        guidance: gammas of each.
        draws: of the mean of several.
        seed: of the noise.
        data_dir: folder of prepared TFDS sets.
    """
    clip = clip_of(priors[0], data_dir)
    train, test = Split("train", data_dir), Split("test", data_dir)
    said = embeddings(clip.run, "train", data_dir)
    true, told = np.asarray(clip.images(test.pictures)), clip.told(prompts(test))
    print("| share of the variance | components |\n|---|---|")
    for share in SHARES:
        print(
            f"| {share} | {len(fit_codes(said.images, variance=share).axes)} of {true.shape[1]} |"
        )

    def measure(z: np.ndarray) -> dict[str, float]:
        nearest = (unit(z) @ true.T).argmax(1)
        same = test.concepts[nearest] == test.concepts
        cosine = (unit(z) * true).sum(1)
        return {
            "cosine with z_i": float(cosine.mean()),
            "with z_t": float((unit(z) * np.asarray(told.embedding)).sum(1).mean()),
            "nearest is of the concept, %": 100 * float(same.mean()),
        }

    line = regression(said, train.concepts)
    rows = {
        "mean of the training split": measure(np.tile(said.images.mean(0), (len(true), 1))),
        "z_t itself": measure(np.asarray(told.embedding)),
        "linear regression": measure(line.predict(np.asarray(told.embedding))),
    }
    for run in priors:
        for gamma in guidance:
            prior = load_prior(run, guidance=gamma, data_dir=data_dir)
            name = f"{run.name}, gamma {gamma:g}" if len(guidance) > 1 else run.name
            rows[f"{name}: the better of two"] = measure(from_prior(prior, told, seed=seed))
            many = [from_prior(prior, told, seed=seed + i, count=1) for i in range(draws)]
            rows[f"{name}: one draw"] = measure(many[0])
            rows[f"{name}: mean of {draws}"] = measure(np.mean(many, axis=0))
            print(f"{name}: measured", flush=True)
    print("\n" + table(rows, "prior"))


if __name__ == "__main__":
    tyro.cli(main)

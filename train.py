"""Train a recipe: python train.py configs/digits.py [--flags]; --help lists them."""

import sys

from diffusion_jax.training.platform import set_xla_flags

if __name__ == "__main__":
    set_xla_flags()
    from diffusion_jax.training.cli import run_command, train_command

    run_command(lambda: train_command(sys.argv[1:]))

"""Train a recipe: python train.py configs/digits.py [--flags]; --help lists them."""

import signal
import sys

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # while the libraries load, for some seconds
    from diffusion_jax.training.platform import set_xla_flags

    set_xla_flags()
    from diffusion_jax.training.cli import run_command, train_command

    run_command(lambda: train_command(sys.argv[1:]))

"""Bits per dimension of a run: python evaluate.py runs/digits --num 500; --help lists the flags."""

import signal
import sys

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # while the libraries load, for some seconds
    from diffusion_jax.training.platform import set_xla_flags

    set_xla_flags()
    from diffusion_jax.training.cli import run_command
    from diffusion_jax.training.evaluate_cli import evaluate_command

    run_command(lambda: evaluate_command(sys.argv[1:]))

"""Draw pictures from a run: python sample.py runs/digits --num 64; --help lists the flags."""

import signal
import sys

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # while the libraries load, for some seconds
    from diffusion_jax.training.platform import set_xla_flags

    set_xla_flags()
    from diffusion_jax.training.cli import run_command
    from diffusion_jax.training.sample_cli import sample_command

    run_command(lambda: sample_command(sys.argv[1:]))

"""Draw pictures from a run: python sample.py runs/digits --num 64; --help lists the flags."""

import sys

from diffusion_jax.training.platform import set_xla_flags

if __name__ == "__main__":
    set_xla_flags()
    from diffusion_jax.training.cli import run_command
    from diffusion_jax.training.sample_cli import sample_command

    run_command(lambda: sample_command(sys.argv[1:]))

"""Draw pictures from a run: python sample.py runs/digits --num 64; --help lists the flags.

From Stable Diffusion's weights: python sample.py --checkpoint FOLDER --prompt TEXT.
"""

import signal
import sys

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # while the libraries load, for some seconds
    from diffusion_jax.training.platform import set_xla_flags

    set_xla_flags()
    from diffusion_jax.training.cli import run_command

    if any(flag.split("=")[0] == "--checkpoint" for flag in sys.argv[1:]):
        from diffusion_jax.interop.sd_cli import checkpoint_command as command
    else:
        from diffusion_jax.training.code_cli import any_command as command
    run_command(lambda: command(sys.argv[1:]))

"""How far training on another mesh drifts by rounding: python benchmarks/mesh_rounding.py

The U-Net and the twenty steps of tests/training/test_devices.py, on simulated devices, by plain
gradients and by Adam. Printed are the largest relative differences from one device.
"""

import dataclasses
import os
import sys
from pathlib import Path

flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.update(XLA_FLAGS=flags, JAX_PLATFORMS="cpu")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np  # noqa: E402
import optax  # noqa: E402

from diffusion_jax.models import cuts, digits_unet  # noqa: E402
from tests.training.on_eight_devices import recipe_of, trained  # noqa: E402
from tests.training.toy import recipe as toy  # noqa: E402

MESHES = [(2, 1, 1), (2, 2, 2)]


def main() -> None:
    cuts.LEAST = 256  # as in the test: a small network is cut too
    optimizers = {"plain gradients": (optax.sgd, 0.1), "Adam": (toy().optimizer, 1e-3)}
    print("| optimizer | data, fsdp, tensor | loss, steps 1 to 10 | to 20 | gradient norm |")
    print("|---|---|---:|---:|---:|")
    for name, (optimizer, rate) in optimizers.items():
        recipe = dataclasses.replace(
            recipe_of(digits_unet()), optimizer=optimizer, learning_rate=rate
        )
        one = np.array(trained(recipe, 1, 1, 1)["losses"])
        for mesh in MESHES:
            apart = np.abs(np.array(trained(recipe, *mesh)["losses"]) / one - 1)
            drifts = (apart[:10, 0].max(), apart[:, 0].max(), apart[:, 1].max())
            cells = " | ".join(f"{drift:.1e}" for drift in drifts)
            print(f"| {name} | {', '.join(map(str, mesh))} | {cells} |", flush=True)


if __name__ == "__main__":
    main()

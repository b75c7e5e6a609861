"""The most operations a second that a device has, for model FLOPs utilisation."""

import time

# Dense bfloat16 products with float32 sums, TFLOP/s of one device, from the makers' data sheets.
BFLOAT16 = {
    "H200": 989,
    "H100 PCIe": 756,
    "H100": 989,
    "B200": 2250,
    "A100": 312,
    "A10G": 70,
    "L40S": 362,
    "L4": 121,
    "RTX 4090": 165,
    "TPU v4": 275,
    "TPU v5 lite": 197,
    "TPU v5p": 459,
    "TPU v6 lite": 918,
}


def known_peak(kind: str) -> float | None:
    """FLOP/s in bfloat16 of a device kind in the table."""
    return next((1e12 * peak for name, peak in BFLOAT16.items() if name in kind), None)


def measured_peak(dtype: str, size: int = 2048, calls: int = 10) -> float:
    """FLOP/s of the fastest product of two [size, size] matrices, on JAX's default device."""
    import jax
    import jax.numpy as jnp

    a = jax.random.normal(jax.random.key(0), (size, size), jnp.dtype(dtype))
    product = jax.jit(jnp.matmul)
    times = []
    for _ in range(calls + 1):
        start = time.perf_counter()
        product(a, a).block_until_ready()
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times[1:])


def peak(dtype: str) -> tuple[float, str]:
    """(FLOP/s, where the number is from) of JAX's default device."""
    import jax

    kind = jax.devices()[0].device_kind
    known = known_peak(kind) if dtype == "bfloat16" else None
    if known is not None:
        return known, f"{kind}'s data sheet"
    return measured_peak(dtype), "the fastest product of two 2048x2048 matrices here"

"""What programs cost: the compiler's programs against counts from shapes, and small texts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from diffusion_jax.training.costs import Cost, Sent, cost_of, group_size
from diffusion_jax.training.flops import count_flops
from diffusion_jax.training.hlo import parse

ROOT = Path(__file__).resolve().parents[2]


def cost(function, *arguments) -> Cost:
    return cost_of(parse(jax.jit(function).lower(*arguments).compile().as_text()))


def test_a_scans_products_count_as_often_as_it_runs():
    def f(x, w):
        return jax.lax.scan(lambda c, v: (jnp.tanh(c @ v), None), x, w)[0].sum()

    arguments = jnp.zeros((32, 64)), jnp.zeros((9, 64, 64))
    assert cost(f, *arguments).flops == count_flops(f, *arguments) == 9 * 2 * 32 * 64 * 64
    backward = jax.grad(f, argnums=(0, 1))
    assert cost(backward, *arguments).flops == count_flops(backward, *arguments)


def convolve(x, kernel, stride=1, padding="VALID"):
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


CONVOLUTION = """
ENTRY %main (x: bf16[2,9,9,64], k: bf16[3,3,64,32]) -> bf16[2,9,9,32] {
  %x = bf16[2,9,9,64]{3,2,1,0} parameter(0)
  %k = bf16[3,3,64,32]{3,2,1,0} parameter(1)
  ROOT %y = bf16[2,9,9,32]{3,2,1,0} convolution(%x, %k), window={size=3x3 pad=1_1x1_1}, \
dim_labels=b01f_01io->b01f
}
"""


def test_taps_on_padding_do_not_count():
    pairs = 3 * 9 - 2  # along each axis: all taps of all outputs, but one at each end
    assert cost_of(parse(CONVOLUTION)).flops == 2 * 2 * 64 * 32 * pairs**2


def test_a_convolution_without_padding_counts_as_from_shapes():
    arguments = jnp.zeros((2, 9, 9, 4)), jnp.zeros((3, 3, 4, 6))
    text = CONVOLUTION.replace(" pad=1_1x1_1", "").replace("bf16[2,9,9,32]", "bf16[2,7,7,32]")
    assert cost_of(parse(text)).flops == 2 * 2 * 49 * 9 * 64 * 32
    assert count_flops(convolve, *arguments) == 2 * 2 * 49 * 9 * 4 * 6


def test_holes_do_not_count():
    """The gradient of a strided convolution: three quarters of the input are holes."""
    text = CONVOLUTION.replace("size=3x3 pad=1_1x1_1", "size=1x1 lhs_dilate=2x2")
    text = text.replace("bf16[3,3,64", "bf16[1,1,64").replace("bf16[2,9,9,32]", "bf16[2,17,17,32]")
    assert cost_of(parse(text)).flops == 2 * 2 * 81 * 64 * 32


TRAFFIC = """
%fused (p0: f32[10,64,64], p1: s32[]) -> f32[64,64] {
  %p0 = f32[10,64,64]{2,1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %slice = f32[1,64,64]{2,1,0} dynamic-slice(%p0, %p1, %zero, %zero), dynamic_slice_sizes={1,64,64}
  ROOT %flat = f32[64,64]{1,0} bitcast(%slice)
}

%kept (q0: f32[10,64,64], q1: f32[1,64,64], q2: s32[]) -> f32[10,64,64] {
  %q0 = f32[10,64,64]{2,1,0} parameter(0)
  %q1 = f32[1,64,64]{2,1,0} parameter(1)
  %q2 = s32[] parameter(2)
  ROOT %put = f32[10,64,64]{2,1,0} dynamic-update-slice(%q0, %q1, %q2, %q2, %q2)
}

ENTRY %main (w: f32[10,64,64], i: s32[], u: f32[1,64,64]) -> f32[10,64,64] {
  %w = f32[10,64,64]{2,1,0} parameter(0)
  %i = s32[]{:S(2)} parameter(1)
  %u = f32[1,64,64]{2,1,0} parameter(2)
  %read = f32[64,64]{1,0} fusion(%w, %i), kind=kLoop, calls=%fused
  %near = f32[64,64]{1,0:S(1)} negate(%read)
  ROOT %made = f32[10,64,64]{2,1,0} fusion(%w, %u, %i), kind=kLoop, calls=%kept
}
"""


def test_traffic_is_the_slice_and_nothing_for_what_lies_near():
    """Read and written: the slice twice, once more for negate, whose result is near, the update."""
    assert cost_of(parse(TRAFFIC)).memory_bytes == (2 + 1 + 2) * 4 * 64 * 64


RUNS = """
%body (p: (s32[], f32[16,8], f32[16,8])) -> (s32[], f32[16,8], f32[16,8]) {
  %p = (s32[], f32[16,8]{1,0}, f32[16,8]{1,0}) parameter(0)
  %x = f32[16,8]{1,0} get-tuple-element(%p), index=1
  %begin = ((f32[16,8]{1,0}), f32[64,8]{1,0}, u32[]) fusion(%x), kind=kCustom, calls=%started
  %end = f32[64,8]{1,0} fusion(%x), kind=kCustom, calls=%finished
  ROOT %t = (s32[], f32[16,8]{1,0}, f32[16,8]{1,0}) tuple(%x, %x, %x)
}

%started (s: f32[16,8]) -> f32[64,8] {
  %s = f32[16,8]{1,0} parameter(0)
  ROOT %all-gather.1 = f32[64,8]{1,0} all-gather(%s), channel_id=3, replica_groups={{0,1,2,3}}
}

%finished (f: f32[16,8]) -> f32[64,8] {
  %f = f32[16,8]{1,0} parameter(0)
  ROOT %all-gather.2 = f32[64,8]{1,0} all-gather(%f), channel_id=3, replica_groups={{0,1,2,3}}
}

%all-reduce-scatter.9 (r: f32[16,8]) -> f32[4,8] {
  %r = f32[16,8]{1,0} parameter(0)
  %all = f32[16,8]{1,0} all-reduce(%r), channel_id=4, replica_groups=[1,4]<=[4]
  ROOT %part = f32[4,8]{1,0} slice(%all), slice={[0:4], [0:8]}
}

%condition (c: (s32[], f32[16,8], f32[16,8])) -> pred[] {
  %c = (s32[], f32[16,8]{1,0}, f32[16,8]{1,0}) parameter(0)
  %n = s32[] constant(6)
  %i = s32[] get-tuple-element(%c), index=0
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (a: (s32[], f32[16,8], f32[16,8])) -> f32[16,8] {
  %a = (s32[], f32[16,8]{1,0}, f32[16,8]{1,0}) parameter(0)
  %w = (s32[], f32[16,8]{1,0}, f32[16,8]{1,0}) while(%a), condition=%condition, body=%body
  %y = f32[16,8]{1,0} get-tuple-element(%w), index=1
  %kept = f32[4,8]{1,0} fusion(%y), kind=kCustom, calls=%all-reduce-scatter.9
  %ars = f32[16,8]{1,0} all-reduce-start(%y), channel_id=5, replica_groups=[1,4]<=[4]
  %ard = f32[16,8]{1,0} all-reduce-done(%ars)
  ROOT %cp = f32[16,8]{1,0} collective-permute(%ard), channel_id=6, source_target_pairs={{0,1}}
}
"""


def test_collectives_count_once_for_all_their_parts_and_for_every_turn_of_a_loop():
    n = 4.0 * 16 * 8
    assert cost_of(parse(RUNS)).collectives == {
        "all-gather": Sent(6, 6 * 3 * n),
        "reduce-scatter": Sent(1, 3 / 4 * n),
        "all-reduce": Sent(1, 2 * 3 / 4 * n),
        "collective-permute": Sent(1, n),
    }


@pytest.mark.parametrize(
    "text, size",
    [
        ("replica_groups={{0,2},{1,3}}, x={}", 2),
        ("replica_groups=[8,32]<=[16,16]T(1,0)", 32),
        ("replica_groups=mesh['a'=4,'b'=8,'c'=2] {'a','c'}", 8),
        ("replica_groups=mesh['a'=4,'b'=8] {'b':(2)4}", 4),
        ("replica_groups={}", 1),
    ],
)
def test_groups_in_every_form(text, size):
    assert group_size(text) == size


PROGRAM = """
import json, sys
import jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec as P
from diffusion_jax.training.costs import cost_of
from diffusion_jax.training.hlo import parse

mesh = jax.make_mesh((4,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
cut, whole = NamedSharding(mesh, P("x")), NamedSharding(mesh, P())
rows = NamedSharding(mesh, P(None, "x"))
f32 = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)

def scanned(w, x):  # each turn gathers its weights
    return jax.lax.scan(lambda c, v: (jnp.tanh(c @ v), None), x, w)[0]

def cost(f, ins, outs, *shapes):
    text = jax.jit(f, in_shardings=ins, out_shardings=outs).lower(*shapes).compile().as_text()
    found = cost_of(parse(text))
    return found.flops, {k: [s.count, s.bytes] for k, s in found.collectives.items()}

json.dump({
    "gathers": cost(scanned, (rows, cut), cut, f32(5, 64, 64), f32(1024, 64)),
    "sum": cost(lambda x: x.sum(0), (cut,), whole, f32(512, 256)),
}, sys.stdout)
"""


@pytest.fixture(scope="module")
def four_devices():
    flags = "--xla_force_host_platform_device_count=4"
    env = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_weights_cut_over_four_devices_are_gathered_in_every_turn(four_devices):
    flops, collectives = four_devices["gathers"]
    assert flops == 5 * 2 * (1024 / 4) * 64 * 64
    assert collectives == {"all-gather": [5, 5 * 3 / 4 * 4 * 64 * 64]}


def test_a_sum_over_four_devices_is_reduced(four_devices):
    assert four_devices["sum"] == [0, {"all-reduce": [1, 2 * 3 / 4 * 4 * 256]}]

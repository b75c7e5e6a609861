"""Programs' texts: what is read of them, on small ones and on what XLA really compiles."""

import jax
import jax.numpy as jnp
import pytest

from diffusion_jax.training.hlo import Shape, parse, shapes_of, trip_count

LOOPS = """HloModule jit_f, is_scheduled=true

%inner_body (p: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %p = (s32[], f32[4,8]{1,0}) parameter(0)
  ROOT %same = (s32[], f32[4,8]{1,0}) tuple(%p, %p)
}

%inner_condition (q: (s32[], f32[4,8])) -> pred[] {
  %bound = s32[]{:T(128)} constant(7)
  %q = (s32[], f32[4,8]{1,0}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%q), index=0
  ROOT %less = pred[] compare(%i, %bound), direction=LT
}

%fused (a: s32[], b: s32[]) -> pred[] {
  %a = s32[] parameter(0)
  %b = s32[] parameter(1)
  ROOT %less.1 = pred[] compare(%a, %b), direction=LT
}

%fused_condition (r: (s32[], f32[4,8])) -> pred[] {
  %bound.1 = s32[] constant(5)
  %r = (s32[], f32[4,8]{1,0}) parameter(0)
  %j = s32[] get-tuple-element(%r), index=0
  ROOT %f = pred[] fusion(%j, %bound.1), kind=kLoop, calls=%fused
}

ENTRY %main (x: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %x = (s32[], /*index=1*/f32[4,8]{1,0:T(8,128)}) parameter(0), metadata={op_name="f(x)"}
  %w1 = (s32[], f32[4,8]{1,0}) while(%x), condition=%inner_condition, body=%inner_body
  %w2 = (s32[], f32[4,8]{1,0}) while(%w1), condition=%fused_condition, body=%inner_body
  ROOT %w3 = (s32[], f32[4,8]{1,0}) while(%w2), condition=%fused_condition, body=%inner_body, \
backend_config={"known_trip_count":{"n":"11"}}
}
"""


def test_lines_are_read_with_their_names_types_and_attributes():
    program = parse(LOOPS)
    assert program.entry == "%main" and len(program.computations) == 5
    main = program.computations["%main"]
    assert main.root == "%w3" and main.parameters[0].name == "%x"
    assert main.instructions["%w2"].operands == ("%w1",)
    assert main.instructions["%w2"].called("body") == "%inner_body"
    assert [user.name for user in main.users["%w1"]] == ["%w2"]
    assert main.instructions["%x"].bytes == 4 + 4 * 4 * 8


def test_a_loop_runs_as_often_as_its_condition_or_the_compiler_says():
    program = parse(LOOPS)
    main = program.computations["%main"]
    counts = [trip_count(program, main.instructions[name]) for name in ("%w1", "%w2", "%w3")]
    assert counts == [7, 5, 11]


def test_scans_of_jax_run_as_often_as_they_are_long():
    def nested(x):
        def outer(c, _):
            return jax.lax.scan(lambda d, _: (jnp.sin(d), None), c, length=3)[0], None

        return jax.lax.scan(outer, x, length=13)[0]

    text = jax.jit(nested).lower(jnp.zeros((64, 64))).compile().as_text()
    program = parse(text)
    found = [
        trip_count(program, instruction)
        for computation in program.computations.values()
        for instruction in computation.instructions.values()
        if instruction.opcode == "while"
    ]
    assert sorted(found) in ([3, 13], [13])  # XLA may have unrolled the short one


def test_types_say_their_size_and_where_they_lie():
    near, far, flag = shapes_of("(bf16[4,8]{1,0:T(8,128)(2,1)S(1)}, f32[2,3]{1,0}, pred[])")
    assert near.bytes == 64 and near.memory_bytes == 0
    assert far == Shape((2, 3), 32) and far.memory_bytes == 24
    assert flag.bytes == 1


def test_tiles_are_filled_up_along_the_fastest_axes():
    """f32[3,128,5] whose fastest axis is the second: 5 becomes 8, and 128 stays."""
    (shape,) = shapes_of("f32[3,128,5]{1,2,0:T(8,128)}")
    assert shape.bytes == 4 * 3 * 128 * 5 and shape.memory_bytes == 4 * 3 * 128 * 8


def test_a_text_without_an_entry_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        parse("HloModule nothing")

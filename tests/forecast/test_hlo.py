"""Counts in the text of optimized HLO modules, against values counted by hand."""

import pytest

from jmarl.forecast import kernels
from jmarl.forecast.hlo import Shape, parse, parse_shapes
from jmarl.forecast.kernels import Loop, Work


MODULE = """\
HloModule jit_chunk, is_scheduled=true

FileNames
1 "/code/loop.py"

FunctionNames
1 "f"

FileLocations
1 {file_name_id=1 function_name_id=1 line=7 end_line=7 column=1 end_column=9}

StackFrames
1 {file_location_id=1 parent_frame_id=1}

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%fused_row (p0: f32[16,8], p1: f32[8], p2: s32[]) -> f32[16,8] {
  %p0 = f32[16,8]{1,0} parameter(0)
  %p1 = f32[8]{0} parameter(1)
  %p2 = s32[] parameter(2)
  %zero = s32[] constant(0)
  %row = f32[1,8]{1,0} bitcast(%p1)
  ROOT %put = f32[16,8]{1,0} dynamic-update-slice(%p0, %row, %p2, %zero)
}

%fused_take (p0: f32[16,8], p1: s32[]) -> f32[8] {
  %p0 = f32[16,8]{1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %taken = f32[1,8]{1,0} dynamic-slice(%p0, %p1, %zero), dynamic_slice_sizes={1,8}
  ROOT %flat = f32[8]{0} bitcast(%taken)
}

%fused_add (p0: f32[8]) -> f32[8] {
  %p0 = f32[8]{0} parameter(0)
  ROOT %twice = f32[8]{0} add(%p0, %p0)
}

%inner_body (s: (s32[], f32[8])) -> (s32[], f32[8]) {
  %s = (s32[], f32[8]{0}) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %v = f32[8]{0} get-tuple-element(%s), index=1
  %w = f32[8]{0} fusion(%v), kind=kLoop, calls=%fused_add
  ROOT %t = (s32[], f32[8]{0}) tuple(%i, %w)
}

%condition (s: (s32[], f32[8])) -> pred[] {
  %s = (s32[], f32[8]{0}) parameter(0)
  ROOT %go = pred[] constant(true)
}

%small (v: f32[8]) -> f32[8] {
  ROOT %v = f32[8]{0} parameter(0)
}

%large (v: f32[8]) -> f32[8] {
  %v = f32[8]{0} parameter(0)
  %a = f32[8]{0} fusion(%v), kind=kLoop, calls=%fused_add
  ROOT %b = f32[8]{0} copy(%a)
}

%body (s: (s32[], f32[8], f32[16,8])) -> (s32[], f32[8], f32[16,8]) {
  %s = (s32[], f32[8]{0}, /*index=2*/f32[16,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %v = f32[8]{0} get-tuple-element(%s), index=1
  %rows = f32[16,8]{1,0} get-tuple-element(%s), index=2
  %put = f32[16,8]{1,0} fusion(%rows, %v, %i), kind=kLoop, calls=%fused_row, \
metadata={op_name="jit(chunk)/rollout/while/body/put" stack_frame_id=1}
  %took = f32[8]{0} fusion(%put, %i), kind=kLoop, calls=%fused_take
  %in = (s32[], f32[8]{0}) tuple(%i, %took)
  %out = (s32[], f32[8]{0}) while(%in), condition=%condition, body=%inner_body, \
metadata={op_name="jit(chunk)/rollout/while/body/while"}, \
backend_config={"known_trip_count":{"n":"3"}}
  %next = f32[8]{0} get-tuple-element(%out), index=1
  %chosen = f32[8]{0} conditional(%i, %next, %next), branch_computations={%small, %large}
  %all = f32[8]{0} all-reduce-start(%chosen), replica_groups={}, to_apply=%add
  %done = f32[8]{0} all-reduce-done(%all)
  ROOT %t = (s32[], f32[8]{0}, f32[16,8]{1,0}) tuple(%i, %done, %put)
}

ENTRY %main (v: f32[8], rows: f32[16,8]) -> f32[8] {
  %v = f32[8]{0} parameter(0)
  %rows = f32[16,8]{1,0} parameter(1)
  %zero = s32[] constant(0)
  %in = (s32[], f32[8]{0}, f32[16,8]{1,0}) tuple(%zero, %v, %rows)
  %out = (s32[], f32[8]{0}, f32[16,8]{1,0}) while(%in), condition=%condition, body=%body, \
metadata={op_name="jit(chunk)/rollout/while"}
  ROOT %result = f32[8]{0} get-tuple-element(%out), index=1
}
"""


@pytest.fixture(scope="module")
def module():
    return parse(MODULE)


def test_shapes_have_their_bytes():
    shapes = list(
        parse_shapes("(pred[3]{0}, /*index=1*/bf16[2,5]{1,0:T(8,128)}, s32[])")
    )
    assert shapes == [Shape("pred", (3,)), Shape("bf16", (2, 5)), Shape("s32", ())]
    assert [shape.nbytes for shape in shapes] == [3, 20, 4]
    assert next(parse_shapes("f8e4m3fn[7]")).nbytes == 7
    assert next(parse_shapes("s4[3]")).nbytes == 2


def test_the_tree_of_loops_has_their_lengths(module):
    (loop,) = kernels.count(module).loops
    assert loop.path == "jit(chunk)/rollout/while" and loop.trips is None
    assert [inner.trips for inner in loop.loops] == [3]
    assert kernels.find(kernels.count(module), "rollout") == loop
    assert kernels.find(kernels.count(module), "update") is None
    assert list(kernels.unknown(kernels.count(module))) == [loop]


def test_a_condition_with_a_constant_has_the_length_of_a_loop():
    bounded = MODULE.replace(
        "ROOT %go = pred[] constant(true)",
        "%i = s32[] get-tuple-element(%s), index=0\n  %n = s32[] constant(5)\n"
        "  ROOT %go = pred[] compare(%i, %n), direction=LT",
    )
    (loop,) = kernels.count(parse(bounded)).loops
    assert loop.trips == 5 and [inner.trips for inner in loop.loops] == [3]
    (loop,) = kernels.count(parse(bounded.replace("LT", "NE"))).loops
    assert loop.trips is None


def test_launches_follow_loops_and_the_largest_branch(module):
    (loop,) = kernels.count(module).loops
    # put, took, the two kernels of the larger branch, and the collective
    assert loop.inline.launches == 2 + 2 + 1
    assert loop.iteration.launches == 5 + 3


def test_launches_by_file_add_up_to_those_of_the_program(module):
    found = kernels.launches_by_file(module)
    assert found == {"/code/loop.py": 1, "": 7}
    assert found.total() == kernels.count(module).iteration.launches


def test_slices_and_updates_in_place_count_with_their_own_size(module):
    row, number = 8 * 4, 4
    put = (row + number) + row  # reads the row and its place, and writes the row
    took = (row + number) + row
    twice = 2 * row
    (loop,) = kernels.count(module).loops
    branch = twice + 2 * row  # a fusion and a copy
    assert loop.inline.nbytes == put + took + branch
    assert loop.iteration.nbytes == put + took + branch + 3 * twice


def test_a_collective_is_counted_once_for_start_and_done(module):
    (loop,) = kernels.count(module).loops
    assert loop.iteration.collectives == 1
    assert loop.iteration.collective_bytes == 32


def test_the_largest_array_has_its_line_of_code(module):
    first = kernels.largest_arrays(module)[0]
    assert first == (16 * 8 * 4, "f32[16,8]", "/code/loop.py:7")


def traffic_of(text, *fused):
    """Return the bytes of the last instruction of a program that returns it."""
    heads = (f"%fused (p: f32[]) -> f32[] {{\n{body}\n}}\n" for body in fused)
    module = parse(f"{''.join(heads)}ENTRY %main (p: f32[]) -> f32[] {{\n{text}\n}}")
    return kernels.count(module).inline


TABLE = "  %p0 = f32[16,8]{1,0} parameter(0)\n"
PLACE = "  %p1 = s32[] parameter(1)\n"
ROWS = "  %p2 = f32[3,8]{1,0} parameter(2)\n"
PUT = "dynamic-update-slice(%p0, %p2, %p1, %p1)"
FUSED = (
    TABLE + PLACE + ROWS + "  ROOT %f = f32[16,8] fusion(%p0, %p1, %p2), calls=%fused"
)


def test_operands_of_a_fusion_belong_to_parameters_by_number():
    root = f"  ROOT %put = f32[16,8]{{1,0}} {PUT}"
    ordered, mixed = TABLE + PLACE + ROWS + root, ROWS + TABLE + PLACE + root
    assert traffic_of(FUSED, ordered).nbytes == traffic_of(FUSED, mixed).nbytes
    assert traffic_of(FUSED, mixed).nbytes == 2 * 3 * 8 * 4 + 4


def test_an_update_of_a_new_array_writes_all_of_it():
    new = "  %z = f32[] constant(0)\n  %new = f32[16,8]{1,0} broadcast(%z), dimensions={}\n"
    root = f"  ROOT %put = f32[16,8]{{1,0}} {PUT.replace('%p0', '%new')}"
    found = traffic_of(FUSED, TABLE + PLACE + ROWS + new + root)
    assert found.nbytes == 4 + 3 * 8 * 4 + 16 * 8 * 4


def test_a_scatter_reads_and_writes_its_updates():
    place = "  %p1 = s32[3,1]{1,0} parameter(1)\n"
    scatter = "%s = f32[16,8]{1,0} scatter(%p0, %p1, %p2), to_apply=%add"
    expected = 3 * 4 + 2 * 3 * 8 * 4
    alone = traffic_of(TABLE + place + ROWS + f"  ROOT {scatter}")
    fused = traffic_of(
        FUSED.replace(PLACE, place), TABLE + place + ROWS + f"  ROOT {scatter}"
    )
    assert alone.nbytes == fused.nbytes == expected


def test_the_tuple_of_a_start_counts_once():
    copy = "  %c = (f32[16,8]{1,0}, f32[16,8]{1,0}, u32[]) copy-start(%p0)\n"
    done = "  ROOT %d = f32[16,8]{1,0} copy-done(%c)"
    assert traffic_of(TABLE + copy + done)[:2] == (1, 2 * 16 * 8 * 4)
    gather = "  %g = (f32[16,8]{1,0}, f32[32,8]{1,0}) all-gather-start(%p0)\n"
    done = "  ROOT %d = f32[32,8]{1,0} all-gather-done(%g)"
    assert traffic_of(TABLE + gather + done) == Work(1, 0, 1, 32 * 8 * 4)


def test_scratch_memory_of_a_product_does_not_count():
    product = "(f32[16,16]{1,0}, s8[4194304]{0}) custom-call(%p0, %p0)"
    target = 'custom_call_target="__cublas$gemm"'
    found = traffic_of(f"{TABLE}  ROOT %c = {product}, {target}")
    assert found.nbytes == 2 * 16 * 8 * 4 + 16 * 16 * 4


def test_a_loop_that_never_runs_costs_nothing():
    empty = parse(
        MODULE.replace('"known_trip_count":{"n":"3"}', '"known_trip_count":{"n":"0"}')
    )
    (loop,) = kernels.count(empty).loops
    assert loop.iteration == loop.inline


def test_the_loop_of_a_scope_is_the_one_directly_in_it():
    keys = Loop("jit(f)/while/body/rollout/while", 2, Work(3), ())
    inner = Loop("jit(f)/while/body/rollout/while/body/while", 8, Work(90), ())
    steps = Loop("jit(f)/while/body/rollout/while", 32, Work(100), (inner,))
    program = Loop("", 1, Work(), (keys, steps))
    assert kernels.find(program, "rollout") == steps
    assert kernels.find(program._replace(loops=(inner,)), "rollout") is None


def test_work_adds_up():
    a, b = Work(1, 2, 3, 4), Work(10, 20, 30, 40)
    assert a.plus(b, 2) == Work(21, 42, 63, 84)
    assert a.plus(b, 2).plus(b, -2) == a

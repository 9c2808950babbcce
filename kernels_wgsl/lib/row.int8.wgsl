// row int8: a matvec keeps its input in workgroup memory as 8-bit integers
// uses    input int8 no_input
// why     Approximate. A third of the instructions and a quarter of the traffic of floats: those bound a matvec of 4-bit weights, not memory.

override HALVES: u32;  // COLS / 16

var<workgroup> row_codes: array<vec4<u32>, HALVES>;
var<workgroup> row_factors: array<vec2<f32>, HALVES>;

// Returns this thread's share of the row's sum of squares. Holds barriers: call it in uniform control flow.
fn row_load(row: u32, t: u32) -> f32 {
  input_prepare(row, t);
  for (var half = t; half < HALVES; half += WG) {
    let first = 4u * half;
    let packed = pack(mat4x4<f32>(
      input_at(row, first), input_at(row, first + 1u), input_at(row, first + 2u), input_at(row, first + 3u),
    ));
    row_codes[half] = packed.codes;
    row_factors[half] = packed.factor;
  }
  workgroupBarrier();
  return input_squares;
}

fn row_scale(squares: f32) -> f32 {
  return input_scale(squares);
}

// Sum of weights times inputs over the 32 columns of the row's unit; i is the weight's.
fn unit_dot(i: u32, unit: u32) -> f32 {
  return int8_dot(i, 0u, row_codes[2u * unit], row_factors[2u * unit])
    + int8_dot(i, 1u, row_codes[2u * unit + 1u], row_factors[2u * unit + 1u]);
}

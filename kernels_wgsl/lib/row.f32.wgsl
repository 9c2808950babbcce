// row f32: a matvec keeps its input in workgroup memory
// uses    input

override QUADS: u32;  // COLS / 4 rounded up to 8; a workgroup array takes a bare override only

var<workgroup> row_quads: array<vec4<f32>, QUADS>;

// Returns this thread's share of the row's sum of squares. Holds barriers: call it in uniform control flow.
fn row_load(row: u32, t: u32) -> f32 {
  input_prepare(row, t);
  for (var quad = t; quad < QUADS; quad += WG) {
    var value = vec4<f32>();
    if (quad < COLS / 4u) {
      value = input_at(row, quad);
    }
    row_quads[quad] = value;
  }
  workgroupBarrier();
  return input_squares;
}

fn input_quad(quad: u32) -> vec4<f32> {
  return row_quads[quad];
}

fn row_scale(squares: f32) -> f32 {
  return input_scale(squares);
}

// Sum of weights times inputs over the 32 columns of the row's unit; i is the weight's.
fn unit_dot(i: u32, unit: u32) -> f32 {
  return weight_dot(i, unit * 8u);
}

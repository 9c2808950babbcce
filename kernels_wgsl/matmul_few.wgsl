// matmul_few: as matmul_int8, for up to 8 rows: y[r, OFFSET + n] = sum_k W[n, k] x[r, k] + bias[OFFSET + n], plus y where ADD
// binding 2 x_factors read       array<vec2<f32>> [rows up to 8][COLS / 16]
// binding 3 x_codes   read       array<vec4<u32>> [rows up to 8][COLS / 16]
// binding 4 y         read_write array<f32>       [rows up to 8][STRIDE]
// grid    ROWS / PER, rows / 8
// uses    weight pack no_input bias
// why     Approximate. A matvec whose weights, once read, serve eight rows: tiles of 64 would be nearly empty.

override COLS: u32;
override ROWS: u32;        // rows of this weight
override STRIDE: u32;      // numbers in a row of y
override OFFSET: u32 = 0;  // where this weight's rows begin in a row of y
override ADD: bool = false;
override PER: u32 = 16;    // rows of the weight a workgroup
override WG: u32 = 256;

@group(0) @binding(2) var<storage, read> x_factors: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read> x_codes: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

var<workgroup> partial: array<mat2x4<f32>, WG>;

// Integers of a weight times those of one row at `at`, with the row's scale; with an offset, the row's sum as well.
fn row_dot(codes: vec4<u32>, w: vec2<f32>, at: u32) -> f32 {
  let factor = x_factors[at];
  let product = w.x * factor.x * f32(int8_sum(codes, x_codes[at]));
  return select(product, product + w.y * factor.y, WEIGHT_OFFSET);
}

// Half h of the weight's unit i times the same half of eight rows; that of the first lies at `at`.
fn half_rows(i: u32, h: u32, at: u32) -> mat2x4<f32> {
  let codes = weight_codes(i, h);
  let w = weight_factors(i, h);
  let next = COLS / 16u;
  return mat2x4<f32>(
    row_dot(codes, w, at), row_dot(codes, w, at + next),
    row_dot(codes, w, at + 2u * next), row_dot(codes, w, at + 3u * next),
    row_dot(codes, w, at + 4u * next), row_dot(codes, w, at + 5u * next),
    row_dot(codes, w, at + 6u * next), row_dot(codes, w, at + 7u * next),
  );
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let units = COLS / 32u;
  let n = group.x * PER + t % PER;
  let first = (n / 16u) * units * 16u + n % 16u;
  let row = group.y * 8u;
  var sum = mat2x4<f32>();
  for (var unit = t / PER; unit < units; unit += WG / PER) {
    let at = row * (COLS / 16u) + 2u * unit;
    sum += half_rows(first + unit * 16u, 0u, at) + half_rows(first + unit * 16u, 1u, at + 1u);
  }
  partial[t] = sum;
  workgroupBarrier();
  for (var width = WG / 2u; width >= PER; width /= 2u) {
    if (t < width) {
      partial[t] += partial[t + width];
    }
    workgroupBarrier();
  }
  // A thread an output: PER of the weight's rows for each of the eight.
  for (var i = t; i < 8u * PER; i += WG) {
    let at_n = group.x * PER + i % PER;
    if (at_n < ROWS) {
      let at = (row + i / PER) * STRIDE + OFFSET + at_n;
      y[at] = partial[i % PER][i / PER / 4u][(i / PER) % 4u] + bias_at(OFFSET + at_n) + select(0.0, y[at], ADD);
    }
  }
}

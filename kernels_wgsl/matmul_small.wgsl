// matmul_small: as matmul, where a CPU plays GPU: y[r, OFFSET + n] = sum_k W[n, k] x[r, k] + bias, plus y where ADD
// binding 3 x read       array<vec4<f32>> [rows up to 64][COLS / 4]
// binding 4 y read_write array<f32>       [rows up to 64][STRIDE]
// grid    ROWS / 128, rows / 8
// uses    weight no_input bias
// why     A CPU caches by itself: no workgroup memory and no barriers, 8 x 8 outputs a thread, and a short prompt pays for 8 rows.

override COLS: u32;
override ROWS: u32;        // rows of this weight
override STRIDE: u32;      // numbers in a row of y
override OFFSET: u32 = 0;  // where this weight's rows begin in a row of y
override ADD: bool = false;

@group(0) @binding(3) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

fn load_x(row: u32, quad: u32) -> vec4<f32> {
  if (COLS % 32u != 0u && quad >= COLS / 4u) {
    return vec4<f32>();
  }
  return x[row * (COLS / 4u) + quad];
}

// Four rows of x, one a column of the matrix, at one quad of their columns.
fn x_block(row: u32, quad: u32) -> mat4x4<f32> {
  return mat4x4<f32>(load_x(row, quad), load_x(row + 1u, quad), load_x(row + 2u, quad), load_x(row + 3u, quad));
}

fn put(row: u32, n: u32, sum: f32) {
  if (n < ROWS) {
    let at = row * STRIDE + OFFSET + n;
    y[at] = sum + bias_at(OFFSET + n) + select(0.0, y[at], ADD);
  }
}

fn store_row(row: u32, n: u32, sum: vec4<f32>) {
  put(row, n, sum.x);
  put(row, n + 1u, sum.y);
  put(row, n + 2u, sum.z);
  put(row, n + 3u, sum.w);
}

// Written out: a matrix that is indexed by a variable is kept in memory.
fn store(row: u32, n: u32, sum: mat4x4<f32>) {
  store_row(row, n, sum[0]);
  store_row(row + 1u, n, sum[1]);
  store_row(row + 2u, n, sum[2]);
  store_row(row + 3u, n, sum[3]);
}

// Four rows of the weight at the quads that its words p hold: columns 4 p to 4 p + 3 of a unit (a), and 16 on (b).
struct Block {
  a: mat4x4<f32>,
  b: mat4x4<f32>,
}

// Columns of the matrices are columns of the weight.
fn weight_block(i: u32, p: u32) -> Block {
  let w0 = weight_quads(i, p);
  let w1 = weight_quads(i + 1u, p);
  let w2 = weight_quads(i + 2u, p);
  let w3 = weight_quads(i + 3u, p);
  return Block(
    transpose(mat4x4<f32>(w0[0], w1[0], w2[0], w3[0])),
    transpose(mat4x4<f32>(w0[1], w1[1], w2[1], w3[1])),
  );
}

// Where row n begins in the weight; the last rows again where there are no more.
fn first_unit(n: u32) -> u32 {
  let row = min(n, (ROWS - 1u) / 4u * 4u);
  return (row / 16u) * ((COLS + 31u) / 32u) * 16u + row % 16u;
}

@compute @workgroup_size(16)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let row = group.y * 8u;
  let n = (group.x * 16u + t) * 8u;
  let first = first_unit(n);
  let second = first_unit(n + 4u);
  var s00 = mat4x4<f32>();
  var s01 = mat4x4<f32>();
  var s10 = mat4x4<f32>();
  var s11 = mat4x4<f32>();
  for (var unit = 0u; unit < (COLS + 31u) / 32u; unit++) {
    for (var p = 0u; p < 4u; p++) {
      let v = weight_block(first + unit * 16u, p);
      let w = weight_block(second + unit * 16u, p);
      let quad = unit * 8u + p;
      let a0 = x_block(row, quad);
      let b0 = x_block(row, quad + 4u);
      let a1 = x_block(row + 4u, quad);
      let b1 = x_block(row + 4u, quad + 4u);
      s00 += v.a * a0 + v.b * b0;
      s01 += w.a * a0 + w.b * b0;
      s10 += v.a * a1 + v.b * b1;
      s11 += w.a * a1 + w.b * b1;
    }
  }
  store(row, n, s00);
  store(row, n + 4u, s01);
  store(row + 4u, n, s10);
  store(row + 4u, n + 4u, s11);
}

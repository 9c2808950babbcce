// matmul_narrow: as matmul, for weights of few rows: y[r, OFFSET + n] = sum_k W[n, k] x[r, k] + bias, plus y where ADD
// binding 3 x read       array<vec4<f32>> [rows up to 64][COLS / 4]
// binding 4 y read_write array<f32>       [rows up to 64][STRIDE]
// grid    ROWS / 64, rows / 64
// uses    weight no_input bias outer
// why     Few workgroups: four times the threads of matmul, each with 4 x 4 outputs, and the next unit is loaded while this one is multiplied.

override COLS: u32;
override ROWS: u32;        // rows of this weight
override STRIDE: u32;      // numbers in a row of y
override OFFSET: u32 = 0;  // where this weight's rows begin in a row of y
override ADD: bool = false;

@group(0) @binding(3) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

// One unit of 32 columns: [32 columns][64 rows / 4], four rows in a vector; first x, then the weight.
var<workgroup> tiles: array<vec4<f32>, 1024>;

// What a thread brings of a unit: two blocks of four rows and four columns.
struct Blocks {
  a: mat4x4<f32>,
  b: mat4x4<f32>,
}

fn load_x(row: u32, quad: u32) -> vec4<f32> {
  if (COLS % 32u != 0u && quad >= COLS / 4u) {
    return vec4<f32>();
  }
  return x[row * (COLS / 4u) + quad];
}

fn x_block(row: u32, quad: u32) -> mat4x4<f32> {
  return transpose(mat4x4<f32>(load_x(row, quad), load_x(row + 1u, quad), load_x(row + 2u, quad), load_x(row + 3u, quad)));
}

// Threads 0-63 bring x, 64-127 the weight; the others only multiply.
fn load_blocks(group: vec3<u32>, t: u32, unit: u32) -> Blocks {
  let four = t % 16u;
  let p = (t / 16u) % 4u;  // quads p and p + 4
  if (t < 64u) {
    let row = group.y * 64u + four * 4u;
    return Blocks(x_block(row, unit * 8u + p), x_block(row, unit * 8u + p + 4u));
  }
  let n = min(group.x * 64u + four * 4u, (ROWS - 1u) / 4u * 4u);
  let i = ((n / 16u) * ((COLS + 31u) / 32u) + unit) * 16u + n % 16u;
  let w0 = weight_quads(i, p);
  let w1 = weight_quads(i + 1u, p);
  let w2 = weight_quads(i + 2u, p);
  let w3 = weight_quads(i + 3u, p);
  return Blocks(
    transpose(mat4x4<f32>(w0[0], w1[0], w2[0], w3[0])),
    transpose(mat4x4<f32>(w0[1], w1[1], w2[1], w3[1])),
  );
}

fn store_blocks(t: u32, blocks: Blocks) {
  let at = (t / 64u) * 512u + ((t / 16u) % 4u) * 64u + t % 16u;
  tiles[at] = blocks.a[0];
  tiles[at + 16u] = blocks.a[1];
  tiles[at + 32u] = blocks.a[2];
  tiles[at + 48u] = blocks.a[3];
  tiles[at + 256u] = blocks.b[0];
  tiles[at + 272u] = blocks.b[1];
  tiles[at + 288u] = blocks.b[2];
  tiles[at + 304u] = blocks.b[3];
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let tx = t % 16u;
  let ty = t / 16u;
  let units = (COLS + 31u) / 32u;
  var next: Blocks;
  if (t < 128u) {
    next = load_blocks(group, t, 0u);
  }
  var sum = mat4x4<f32>();
  for (var unit = 0u; unit < units; unit++) {
    workgroupBarrier();
    if (t < 128u) {
      store_blocks(t, next);
    }
    workgroupBarrier();
    if (t < 128u && unit + 1u < units) {
      next = load_blocks(group, t, unit + 1u);
    }
    for (var k = 0u; k < 512u; k += 32u) {
      sum += outer(tiles[k + ty], tiles[k + 512u + tx]) + outer(tiles[k + 16u + ty], tiles[k + 528u + tx]);
    }
  }
  let row = group.y * 64u + ty * 4u;
  let n = group.x * 64u + tx * 4u;
  for (var i = 0u; i < 4u; i++) {
    for (var j = 0u; j < 4u && n + j < ROWS; j++) {
      let at = (row + i) * STRIDE + OFFSET + n + j;
      y[at] = sum[i][j] + bias_at(OFFSET + n + j) + select(0.0, y[at], ADD);
    }
  }
}

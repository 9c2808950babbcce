// matmul_matrix: as matmul, by the GPU's matrix units: y[r, OFFSET + n] = sum_k W[n, k] x[r, k] + bias[OFFSET + n], plus y where ADD
// binding 3 x read       array<vec4<f32>> [rows up to 64][COLS / 4]
// binding 4 y read_write array<f32>       [rows up to 64][STRIDE]
// grid    ROWS / 64, rows / 64, splits
// uses    weight no_input split
// needs   shader-f16 subgroups chromium-experimental-subgroup-matrix
// why     Three to five times as fast as tiles of floats. Approximate: weights and activations keep 11 bits; products and sums are in f32.

override COLS: u32;
override ROWS: u32;        // rows of this weight
override STRIDE: u32;      // numbers in a row of y
override OFFSET: u32 = 0;  // where this weight's rows begin in a row of y
override ADD: bool = false;

@group(0) @binding(3) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

// One unit of 32 columns. Eight halves more a line than it needs, so that neighbours do not meet in one memory bank.
const X_LINE = 40u;
const W_LINE = 72u;
var<workgroup> x_tile: array<f16, 2560>;  // [64 rows][32 columns]
var<workgroup> w_tile: array<f16, 2304>;  // [32 columns][64 rows of the weight]
var<workgroup> block: array<f32, 1024>;   // [4 subgroups][16][16], to be stored

alias Left = subgroup_matrix_left<f16, 16, 16>;
alias Right = subgroup_matrix_right<f16, 16, 16>;
alias Sums = subgroup_matrix_result<f32, 16, 16>;

// Beyond 65504 a half is infinite, and one infinite activation makes every logit NaN.
fn halves(v: vec4<f32>) -> vec4<f16> {
  return vec4<f16>(clamp(v, vec4<f32>(-65504.0), vec4<f32>(65504.0)));
}

// Remainders tell the compiler that an index is in bounds, which it checks otherwise: half the time of this kernel.
fn load_x(row: u32, line: u32, quad: u32) {
  var v = vec4<f16>();
  if (COLS % 32u == 0u || quad < COLS / 4u) {
    v = halves(x[row * (COLS / 4u) + quad]);
  }
  let at = line % 64u * X_LINE + quad % 8u * 4u;
  x_tile[at] = v.x;
  x_tile[at + 1u] = v.y;
  x_tile[at + 2u] = v.z;
  x_tile[at + 3u] = v.w;
}

fn load_weight(group: vec3<u32>, t: u32, unit: u32, p: u32) {
  let line = t % 64u;
  let n = min(group.x * 64u + line, ROWS - 1u);
  let w = weight_quads(((n / 16u) * ((COLS + 31u) / 32u) + unit) * 16u + n % 16u, p);
  let a = vec4<f16>(w[0]);
  let b = vec4<f16>(w[1]);
  let at = p % 4u * 4u * W_LINE + line;
  w_tile[at] = a.x;
  w_tile[at + W_LINE] = a.y;
  w_tile[at + 2u * W_LINE] = a.z;
  w_tile[at + 3u * W_LINE] = a.w;
  w_tile[at + 16u * W_LINE] = b.x;
  w_tile[at + 17u * W_LINE] = b.y;
  w_tile[at + 18u * W_LINE] = b.z;
  w_tile[at + 19u * W_LINE] = b.w;
}

fn load_tiles(group: vec3<u32>, t: u32, unit: u32) {
  let line = t / 8u;
  let row = group.y * 64u + line;
  let quad = unit * 8u + t % 8u;
  load_x(row, line, quad);
  load_x(row + 16u, line + 16u, quad);
  load_x(row + 32u, line + 32u, quad);
  load_x(row + 48u, line + 48u, quad);
  load_weight(group, t, unit, t / 64u);
  load_weight(group, t, unit, t / 64u + 2u);
}

// Rows 16 i and on of the tile, columns 16 k and on of the unit.
fn left(i: u32, k: u32) -> Left {
  return subgroupMatrixLoad<Left, row_major>(&x_tile, i % 4u * 16u * X_LINE + k % 2u * 16u, X_LINE);
}

// Columns 16 k and on of the unit, rows 16 j and on of the weight's tile.
fn right(k: u32, j: u32) -> Right {
  return subgroupMatrixLoad<Right, row_major>(&w_tile, k % 2u * 16u * W_LINE + j % 4u * 16u, W_LINE);
}

// Block i, j of the tile. Holds barriers.
fn store(sums: Sums, t: u32, i: u32, j: u32, group: vec3<u32>, groups: vec3<u32>) {
  let first = t / 32u % 4u * 256u;
  workgroupBarrier();
  subgroupMatrixStore<row_major>(&block, first, sums, 16u);
  workgroupBarrier();
  for (var at = t % 32u; at < 256u; at += 32u) {
    let n = group.x * 64u + 16u * j + at % 16u;
    if (n < ROWS) {
      put_sum(group.y * 64u + 16u * i + at / 16u, n, block[first + at % 256u], group, groups);
    }
  }
}

// Each of the four subgroups, which are of 32 threads, has 2 x 2 blocks of the tile.
@compute @workgroup_size(128)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) t: u32,
) {
  let i = t / 64u * 2u;
  let j = t / 32u % 2u * 2u;
  var s00 = Sums();
  var s01 = Sums();
  var s10 = Sums();
  var s11 = Sums();
  let units = split_units((COLS + 31u) / 32u, group.z, groups.z);
  for (var unit = units.x; unit < units.y; unit++) {
    workgroupBarrier();
    load_tiles(group, t, unit);
    workgroupBarrier();
    for (var k = 0u; k < 2u; k++) {
      let a0 = left(i, k);
      let a1 = left(i + 1u, k);
      let b0 = right(k, j);
      let b1 = right(k, j + 1u);
      s00 = subgroupMatrixMultiplyAccumulate(a0, b0, s00);
      s01 = subgroupMatrixMultiplyAccumulate(a0, b1, s01);
      s10 = subgroupMatrixMultiplyAccumulate(a1, b0, s10);
      s11 = subgroupMatrixMultiplyAccumulate(a1, b1, s11);
    }
  }
  store(s00, t, i, j, group, groups);
  store(s01, t, i, j + 1u, group, groups);
  store(s10, t, i + 1u, j, group, groups);
  store(s11, t, i + 1u, j + 1u, group, groups);
}

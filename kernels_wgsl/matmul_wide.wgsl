// matmul_wide: as matmul, for weights of many rows: y[r, OFFSET + n] = sum_k W[n, k] x[r, k] + bias, plus y where ADD
// binding 3 x read       array<vec4<f32>> [rows up to 128][COLS / 4]
// binding 4 y read_write array<f32>       [rows up to 128][STRIDE]
// grid    ROWS / 128, rows / 128
// uses    weight no_input bias tile
// why     128 x 128 outputs a workgroup: half the loads and dequantisations of matmul for a product. Needs 32 KiB of workgroup memory, or 16 in halves.

override COLS: u32;
override ROWS: u32;        // rows of this weight
override STRIDE: u32;      // numbers in a row of y
override OFFSET: u32 = 0;  // where this weight's rows begin in a row of y
override ADD: bool = false;

@group(0) @binding(3) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

// One unit of 32 columns: [32 columns][128 rows / 4], four rows in a vector; first x, then the weight.
var<workgroup> tiles: array<TileQuad, 2048>;

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

// Threads 0-127 bring x, the others the weight.
fn load_blocks(group: vec3<u32>, t: u32, unit: u32) -> Blocks {
  let four = t % 32u;
  let p = (t / 32u) % 4u;  // quads p and p + 4
  if (t < 128u) {
    let row = group.y * 128u + four * 4u;
    return Blocks(x_block(row, unit * 8u + p), x_block(row, unit * 8u + p + 4u));
  }
  let n = min(group.x * 128u + four * 4u, (ROWS - 1u) / 4u * 4u);
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
  let at = (t / 128u) * 1024u + ((t / 32u) % 4u) * 128u + t % 32u;
  tiles[at] = tile_pack(blocks.a[0]);
  tiles[at + 32u] = tile_pack(blocks.a[1]);
  tiles[at + 64u] = tile_pack(blocks.a[2]);
  tiles[at + 96u] = tile_pack(blocks.a[3]);
  tiles[at + 512u] = tile_pack(blocks.b[0]);
  tiles[at + 544u] = tile_pack(blocks.b[1]);
  tiles[at + 576u] = tile_pack(blocks.b[2]);
  tiles[at + 608u] = tile_pack(blocks.b[3]);
}

fn store(row: u32, n: u32, sum: mat4x4<f32>) {
  for (var i = 0u; i < 4u; i++) {
    for (var j = 0u; j < 4u && n + j < ROWS; j++) {
      let at = (row + i) * STRIDE + OFFSET + n + j;
      y[at] = sum[i][j] + bias_at(OFFSET + n + j) + select(0.0, y[at], ADD);
    }
  }
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let tx = t % 16u;
  let ty = t / 16u;
  let units = (COLS + 31u) / 32u;
  var next = load_blocks(group, t, 0u);
  var s00 = mat4x4<f32>();
  var s01 = mat4x4<f32>();
  var s10 = mat4x4<f32>();
  var s11 = mat4x4<f32>();
  for (var unit = 0u; unit < units; unit++) {
    workgroupBarrier();
    store_blocks(t, next);
    workgroupBarrier();
    if (unit + 1u < units) {
      next = load_blocks(group, t, unit + 1u);
    }
    for (var k = 0u; k < 1024u; k += 32u) {
      let a0 = tiles[k + ty];
      let a1 = tiles[k + ty + 16u];
      let b0 = tiles[k + tx + 1024u];
      let b1 = tiles[k + tx + 1040u];
      s00 += tile_outer(a0, b0);
      s01 += tile_outer(a0, b1);
      s10 += tile_outer(a1, b0);
      s11 += tile_outer(a1, b1);
    }
  }
  let row = group.y * 128u + ty * 4u;
  let n = group.x * 128u + tx * 4u;
  store(row, n, s00);
  store(row, n + 64u, s01);
  store(row + 64u, n, s10);
  store(row + 64u, n + 64u, s11);
}

// matmul: y[r, OFFSET + n] = sum_k W[n, k] x[r, k] + bias[OFFSET + n], plus y[r, OFFSET + n] where ADD
// binding 3 x read       array<vec4<f32>> [rows up to 64][COLS / 4]
// binding 4 y read_write array<f32>       [rows up to 64][STRIDE]
// grid    ROWS / 64, rows / 64, splits
// uses    weight no_input block tile
// why     64 x 64 outputs a workgroup, 8 x 8 a thread, in four matrices that stay in registers; 16 KiB of workgroup memory.

override COLS: u32;
override ROWS: u32;        // rows of this weight
override STRIDE: u32;      // numbers in a row of y
override OFFSET: u32 = 0;  // where this weight's rows begin in a row of y
override ADD: bool = false;

@group(0) @binding(3) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

// One unit of 32 columns: [32 columns][64 rows / 4], four rows in a vector.
var<workgroup> x_tile: array<TileQuad, 512>;
var<workgroup> w_tile: array<TileQuad, 512>;

fn load_x(row: u32, quad: u32) -> vec4<f32> {
  if (COLS % 32u != 0u && quad >= COLS / 4u) {
    return vec4<f32>();
  }
  return x[row * (COLS / 4u) + quad];
}

// Four rows at one quad of columns, turned so that a vector holds one column of four rows.
fn x_block(row: u32, quad: u32) -> mat4x4<f32> {
  return transpose(mat4x4<f32>(load_x(row, quad), load_x(row + 1u, quad), load_x(row + 2u, quad), load_x(row + 3u, quad)));
}

fn load_tiles(group: vec3<u32>, t: u32, unit: u32) {
  let four = t % 16u;  // four rows
  let p = t / 16u;     // quads p and p + 4
  let row = group.y * 64u + four * 4u;
  let a = x_block(row, unit * 8u + p);
  let b = x_block(row, unit * 8u + p + 4u);

  let n = min(group.x * 64u + four * 4u, (ROWS - 1u) / 4u * 4u);
  let i = ((n / 16u) * ((COLS + 31u) / 32u) + unit) * 16u + n % 16u;
  let w0 = weight_quads(i, p);
  let w1 = weight_quads(i + 1u, p);
  let w2 = weight_quads(i + 2u, p);
  let w3 = weight_quads(i + 3u, p);
  let c = transpose(mat4x4<f32>(w0[0], w1[0], w2[0], w3[0]));
  let d = transpose(mat4x4<f32>(w0[1], w1[1], w2[1], w3[1]));

  let at = p * 64u + four;
  x_tile[at] = tile_pack(a[0]);
  x_tile[at + 16u] = tile_pack(a[1]);
  x_tile[at + 32u] = tile_pack(a[2]);
  x_tile[at + 48u] = tile_pack(a[3]);
  x_tile[at + 256u] = tile_pack(b[0]);
  x_tile[at + 272u] = tile_pack(b[1]);
  x_tile[at + 288u] = tile_pack(b[2]);
  x_tile[at + 304u] = tile_pack(b[3]);
  w_tile[at] = tile_pack(c[0]);
  w_tile[at + 16u] = tile_pack(c[1]);
  w_tile[at + 32u] = tile_pack(c[2]);
  w_tile[at + 48u] = tile_pack(c[3]);
  w_tile[at + 256u] = tile_pack(d[0]);
  w_tile[at + 272u] = tile_pack(d[1]);
  w_tile[at + 288u] = tile_pack(d[2]);
  w_tile[at + 304u] = tile_pack(d[3]);
}

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) t: u32,
) {
  let tx = t % 8u;
  let ty = t / 8u;
  var s00 = mat4x4<f32>();
  var s01 = mat4x4<f32>();
  var s10 = mat4x4<f32>();
  var s11 = mat4x4<f32>();
  let units = split_units((COLS + 31u) / 32u, group.z, groups.z);
  for (var unit = units.x; unit < units.y; unit++) {
    workgroupBarrier();
    load_tiles(group, t, unit);
    workgroupBarrier();
    for (var k = 0u; k < 512u; k += 16u) {
      let a0 = x_tile[k + ty];
      let a1 = x_tile[k + ty + 8u];
      let b0 = w_tile[k + tx];
      let b1 = w_tile[k + tx + 8u];
      s00 += tile_outer(a0, b0);
      s01 += tile_outer(a0, b1);
      s10 += tile_outer(a1, b0);
      s11 += tile_outer(a1, b1);
    }
  }
  let row = group.y * 64u + ty * 4u;
  let n = group.x * 64u + tx * 4u;
  put_block(row, n, s00, group, groups);
  put_block(row, n + 32u, s01, group, groups);
  put_block(row + 32u, n, s10, group, groups);
  put_block(row + 32u, n + 32u, s11, group, groups);
}

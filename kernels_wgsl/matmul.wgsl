// matmul: y[r, OFFSET + n] = sum_k W[n, k] x[r, k] + bias[OFFSET + n], plus y[r, OFFSET + n] where ADD
// binding 3 x read       array<vec4<f32>> [rows up to 64][COLS / 4]
// binding 4 y read_write array<f32>       [rows up to 64][STRIDE]
// grid    ROWS / 64, rows / 64
// uses    weight no_input bias
// why     64 x 64 outputs a workgroup, 4 x 4 a thread, weights dequantised once a tile; 16 KiB of workgroup memory in all.

override COLS: u32;
override ROWS: u32;        // rows of this weight
override STRIDE: u32;      // numbers in a row of y
override OFFSET: u32 = 0;  // where this weight's rows begin in a row of y
override ADD: bool = false;

@group(0) @binding(3) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

// One unit of 32 columns: [8 quads][64 rows].
var<workgroup> x_tile: array<vec4<f32>, 512>;
var<workgroup> w_tile: array<vec4<f32>, 512>;

fn load_x(row: u32, unit: u32, quad: u32) -> vec4<f32> {
  let at = unit * 8u + quad;
  if (COLS % 32u != 0u && at >= COLS / 4u) {
    return vec4<f32>();
  }
  return x[row * (COLS / 4u) + at];
}

fn load_tiles(group: vec3<u32>, t: u32, unit: u32) {
  let units = (COLS + 31u) / 32u;
  let quad = t % 8u;
  for (var row = t / 8u; row < 64u; row += 32u) {
    x_tile[quad * 64u + row] = load_x(group.y * 64u + row, unit, quad);
  }
  // 16 neighbouring threads read 16 neighbouring rows of one tile of the weight.
  let n = t % 64u;
  let p = t / 64u;
  let row = group.x * 64u + n;
  if (row < ROWS) {
    let pair = weight_quads(((row / 16u) * units + unit) * 16u + row % 16u, p);
    w_tile[p * 64u + n] = pair[0];
    w_tile[(p + 4u) * 64u + n] = pair[1];
  }
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let tx = t % 16u;
  let ty = t / 16u;
  var sum: array<vec4<f32>, 16>;
  for (var unit = 0u; unit < (COLS + 31u) / 32u; unit++) {
    workgroupBarrier();
    load_tiles(group, t, unit);
    workgroupBarrier();
    for (var quad = 0u; quad < 8u; quad++) {
      var b: array<vec4<f32>, 4>;
      for (var j = 0u; j < 4u; j++) {
        b[j] = w_tile[quad * 64u + tx + 16u * j];
      }
      for (var i = 0u; i < 4u; i++) {
        let a = x_tile[quad * 64u + ty + 16u * i];
        for (var j = 0u; j < 4u; j++) {
          sum[i * 4u + j] = fma(a, b[j], sum[i * 4u + j]);
        }
      }
    }
  }
  for (var i = 0u; i < 16u; i++) {
    let row = group.y * 64u + ty + 16u * (i / 4u);
    let n = group.x * 64u + tx + 16u * (i % 4u);
    if (n < ROWS) {
      let at = row * STRIDE + OFFSET + n;
      y[at] = dot(sum[i], vec4<f32>(1.0)) + bias_at(OFFSET + n) + select(0.0, y[at], ADD);
    }
  }
}

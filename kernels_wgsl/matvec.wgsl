// matvec: y[r, OFFSET + n] = sum_k W[n, k] input[r, k] + bias[OFFSET + n], plus y[r, OFFSET + n] where ADD
// binding 3 x read       array<vec4<f32>> [rows][COLS / 4]
// binding 4 y read_write array<f32>       [rows][STRIDE]
// grid    ROWS / 16, rows
// uses    weight input bias
// why     Rows lie interleaved by 16: neighbouring threads read neighbouring words of different rows, no subgroups needed.

override COLS: u32;
override ROWS: u32;        // rows of this weight
override STRIDE: u32;      // numbers in a row of y
override OFFSET: u32 = 0;  // where this weight's rows begin in a row of y
override ADD: bool = false;
override WG: u32 = 256;

@group(0) @binding(3) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

var<workgroup> partial: array<f32, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let units = (COLS + 31u) / 32u;
  let tile = group.x * units * 16u + t % 16u;
  input_load(group.y, t);
  var sum = 0.0;
  for (var unit = t / 16u; unit < units; unit += WG / 16u) {
    sum += weight_dot(tile + unit * 16u, unit * 8u);
  }
  partial[t] = sum;
  workgroupBarrier();
  let n = group.x * 16u + t;
  if (t < 16u && n < ROWS) {
    sum = 0.0;
    for (var i = t; i < WG; i += 16u) {
      sum += partial[i];
    }
    let at = group.y * STRIDE + OFFSET + n;
    y[at] = sum * input_scale() + bias_at(OFFSET + n) + select(0.0, y[at], ADD);
  }
}

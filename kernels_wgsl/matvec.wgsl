// matvec: y[r, OFFSET + n] = sum_k W[n, k] input[r, k] + bias[OFFSET + n], plus y[r, OFFSET + n] where ADD
// binding 4 y read_write array<f32> [rows][STRIDE]
// grid    ROWS / PER, rows
// uses    weight row bias
// why     Rows lie interleaved by 16: neighbouring threads read neighbouring words of different rows, no subgroups needed.

override COLS: u32;
override ROWS: u32;        // rows of this weight
override STRIDE: u32;      // numbers in a row of y
override OFFSET: u32 = 0;  // where this weight's rows begin in a row of y
override ADD: bool = false;
override PER: u32 = 16;    // rows a workgroup: 4, 8, 16 or 32; few where the weight has few rows, to fill the GPU
override WG: u32 = 256;

@group(0) @binding(4) var<storage, read_write> y: array<f32>;

var<workgroup> partial: array<vec2<f32>, WG>;  // product, row_load's share

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let units = (COLS + 31u) / 32u;
  let n = group.x * PER + t % PER;
  let first = (n / 16u) * units * 16u + n % 16u;
  let share = row_load(group.y, t);
  var product = 0.0;
  for (var unit = t / PER; unit < units; unit += WG / PER) {
    product += unit_dot(first + unit * 16u, unit);
  }
  partial[t] = vec2<f32>(product, share);
  workgroupBarrier();
  for (var width = WG / 2u; width >= PER; width /= 2u) {
    if (t < width) {
      partial[t] += partial[t + width];
    }
    workgroupBarrier();
  }
  if (t < PER && n < ROWS) {
    var squares = 0.0;
    for (var i = 0u; i < PER; i++) {
      squares += partial[i].y;
    }
    let at = group.y * STRIDE + OFFSET + n;
    y[at] = partial[t].x * row_scale(squares) + bias_at(OFFSET + n) + select(0.0, y[at], ADD);
  }
}

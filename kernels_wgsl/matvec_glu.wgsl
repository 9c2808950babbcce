// matvec_glu: y[r, n] = silu(G[n] . input[r]) * (U[n] . input[r])
// binding 3 x read       array<vec4<f32>> [rows][COLS / 4]
// binding 4 y read_write array<f32>       [rows][ROWS]
// grid    ROWS / 16, rows
// uses    weight input
// why     Tiles of gate and up rows alternate, so one workgroup has both and the products never reach memory.

override COLS: u32;
override ROWS: u32;  // rows of G, and of U
override WG: u32 = 256;

@group(0) @binding(3) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

var<workgroup> partial: array<vec2<f32>, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let units = (COLS + 31u) / 32u;
  let gate = 2u * group.x * units * 16u + t % 16u;
  let up = gate + units * 16u;
  input_load(group.y, t);
  var sum = vec2<f32>();
  for (var unit = t / 16u; unit < units; unit += WG / 16u) {
    sum.x += weight_dot(gate + unit * 16u, unit * 8u);
    sum.y += weight_dot(up + unit * 16u, unit * 8u);
  }
  partial[t] = sum;
  workgroupBarrier();
  let n = group.x * 16u + t;
  if (t < 16u && n < ROWS) {
    sum = vec2<f32>();
    for (var i = t; i < WG; i += 16u) {
      sum += partial[i];
    }
    sum *= input_scale();
    y[group.y * ROWS + n] = sum.x / (1.0 + exp(-sum.x)) * sum.y;
  }
}

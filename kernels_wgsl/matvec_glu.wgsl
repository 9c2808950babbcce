// matvec_glu: y[r, OFFSET + n] = act(G[n] . input[r]) * (U[n] . input[r])
// grid    ROWS / PER, rows
// uses    weight row act gated
// why     Tiles of gate and up rows alternate, so one workgroup has both and the products never reach memory.

override COLS: u32;
override ROWS: u32;        // rows of G, and of U, in this weight
override STRIDE: u32;      // numbers in a row of y
override OFFSET: u32 = 0;  // where this weight's rows begin in a row of y
override PER: u32 = 16;    // rows of each a workgroup: 4, 8, 16 or 32
override WG: u32 = 256;

var<workgroup> partial: array<vec3<f32>, WG>;  // gate, up, row_load's share

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let units = (COLS + 31u) / 32u;
  let n = group.x * PER + t % PER;
  let gate = 2u * (n / 16u) * units * 16u + n % 16u;
  let up = gate + units * 16u;
  let share = row_load(group.y, t);
  var product = vec2<f32>();
  for (var unit = t / PER; unit < units; unit += WG / PER) {
    product.x += unit_dot(gate + unit * 16u, unit);
    product.y += unit_dot(up + unit * 16u, unit);
  }
  partial[t] = vec3<f32>(product, share);
  workgroupBarrier();
  for (var width = WG / 2u; width >= PER; width /= 2u) {
    if (t < width) {
      partial[t] += partial[t + width];
    }
    workgroupBarrier();
  }
  var squares = 0.0;
  if (t < PER) {
    for (var i = 0u; i < PER; i++) {
      squares += partial[i].z;
    }
    product = partial[t].xy * row_scale(squares);
  }
  workgroupBarrier();
  put(group.y, n, t, act(product.x) * product.y);
}

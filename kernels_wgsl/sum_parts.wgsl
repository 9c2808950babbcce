// sum_parts: y[r, OFFSET + n] = sum_z parts[z, r, n] + bias[OFFSET + n], plus y[r, OFFSET + n] where ADD
// binding 4 y     read_write array<f32> [rows][STRIDE]
// binding 6 parts read       array<f32> [z][rows up to 64][ROWS]
// grid    z, rows
// uses    bias
// why     A product of few tiles is cut along its columns into z parts that fill the GPU; z workgroups share a row here.

override ROWS: u32;        // rows of this weight
override STRIDE: u32;      // numbers in a row of y
override OFFSET: u32 = 0;  // where this weight's rows begin in a row of y
override ADD: bool = false;

@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(6) var<storage, read> parts: array<f32>;

@compute @workgroup_size(128)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) t: u32,
) {
  let padded = (groups.y + 63u) / 64u * 64u;
  for (var n = group.x * 128u + t; n < ROWS; n += groups.x * 128u) {
    var sum = bias_at(OFFSET + n);
    for (var z = 0u; z < groups.x; z++) {
      sum += parts[(z * padded + group.y) * ROWS + n];
    }
    let at = group.y * STRIDE + OFFSET + n;
    y[at] = sum + select(0.0, y[at], ADD);
  }
}

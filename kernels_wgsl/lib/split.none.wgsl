// split none: a workgroup of a matmul sums over all columns
// uses    bias

// First and last + 1 unit that the workgroup takes.
fn split_units(units: u32, z: u32, count: u32) -> vec2<u32> {
  return vec2<u32>(0u, units);
}

fn put_sum(row: u32, n: u32, sum: f32, group: vec3<u32>, groups: vec3<u32>) {
  let at = row * STRIDE + OFFSET + n;
  y[at] = sum + bias_at(OFFSET + n) + select(0.0, y[at], ADD);
}

// split parts: a workgroup of a matmul sums over a share of the columns, for sum_parts to add up; one share alone is the product
// binding 6 parts read_write array<f32> [z][rows up to 64][ROWS]
// uses    bias
// why     Weights of few rows, and prompts of few tokens, make too few tiles to fill a large GPU.

@group(0) @binding(6) var<storage, read_write> parts: array<f32>;

// First and last + 1 unit that the workgroup takes.
fn split_units(units: u32, z: u32, count: u32) -> vec2<u32> {
  let share = (units + count - 1u) / count;
  return min(vec2<u32>(z * share, (z + 1u) * share), vec2<u32>(units));
}

fn put_sum(row: u32, n: u32, sum: f32, group: vec3<u32>, groups: vec3<u32>) {
  if (groups.z > 1u) {
    parts[(group.z * groups.y * 64u + row) * ROWS + n] = sum;
    return;
  }
  let at = row * STRIDE + OFFSET + n;
  y[at] = sum + bias_at(OFFSET + n) + select(0.0, y[at], ADD);
}

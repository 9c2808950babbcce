// block: 4 x 4 outputs of a matmul
// uses    split
// why     Written out: a matrix that is indexed by a variable, which must be checked, is kept in memory and not in registers.

// One row of y, at four rows of the weight.
fn put_four(row: u32, n: u32, sums: vec4<f32>, group: vec3<u32>, groups: vec3<u32>) {
  if (n < ROWS) { put_sum(row, n, sums.x, group, groups); }
  if (n + 1u < ROWS) { put_sum(row, n + 1u, sums.y, group, groups); }
  if (n + 2u < ROWS) { put_sum(row, n + 2u, sums.z, group, groups); }
  if (n + 3u < ROWS) { put_sum(row, n + 3u, sums.w, group, groups); }
}

fn put_block(row: u32, n: u32, sums: mat4x4<f32>, group: vec3<u32>, groups: vec3<u32>) {
  put_four(row, n, sums[0], group, groups);
  put_four(row + 1u, n, sums[1], group, groups);
  put_four(row + 2u, n, sums[2], group, groups);
  put_four(row + 3u, n, sums[3], group, groups);
}

// import_vector: a norm's weight or a bias -> f32: PLUS + SCALE x
// binding 2 data read_write array<f32> [all vectors of this buffer]
// grid    rows of the piece / 64
// uses    import element
// why     Vectors are small: one number a "row" lets the row order of a weight serve its bias.

@group(0) @binding(2) var<storage, read_write> data: array<f32>;

override PLUS: f32 = 0.0;
override SCALE: f32 = 1.0;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x < params.rows) {
    data[target_row(id.x)] = PLUS + SCALE * element(id.x);
  }
}

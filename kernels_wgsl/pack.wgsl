// pack: y[r] = x[r] as 8-bit integers with a scale for each 16 of them
// binding 0 x read array<vec4<f32>> [rows][COLS / 4]
// grid    COLS / 1024, rows
// uses    half.packed
// why     What reads packed rows and follows a kernel with no 16 numbers of a row in one thread: attention, in prefill.

override COLS: u32;

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x < COLS / 16u) {
    let at = id.y * (COLS / 4u) + 4u * id.x;
    put_half(id.y, id.x, mat4x4<f32>(x[at], x[at + 1u], x[at + 2u], x[at + 3u]));
  }
}

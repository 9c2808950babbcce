// act: y[r] = act(x[r])
// binding 0 x read array<vec4<f32>> [rows][COLS / 4]
// grid    COLS / 1024, rows
// uses    act half
// why     For feed-forward layers without a gate: what follows wants the numbers whole, or packed.

override COLS: u32;

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;

fn quad_at(row: u32, quad: u32) -> vec4<f32> {
  if (quad >= COLS / 4u) {
    return vec4<f32>();
  }
  return act4(x[row * (COLS / 4u) + quad]);
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let quad = 4u * id.x;
  if (quad < COLS / 4u) {
    put_half(id.y, id.x, mat4x4<f32>(
      quad_at(id.y, quad), quad_at(id.y, quad + 1u), quad_at(id.y, quad + 2u), quad_at(id.y, quad + 3u),
    ));
  }
}

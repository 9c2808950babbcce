// act_mul: y[r, n] = act(g[r, n]) * u[r, n]
// binding 0 x read array<vec4<f32>> [rows][COLS / TILE][2][TILE / 4] gate, up
// grid    COLS / 1024, rows
// uses    act half
// why     Takes the order that the gate_up weight leaves behind: alternating tiles of 16, or one tile where it is stacked.

override COLS: u32;
override TILE: u32;  // 16 or COLS

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;

fn gated_quad(row: u32, quad: u32) -> vec4<f32> {
  let tile = TILE / 4u;
  let tiles = (COLS + TILE - 1u) / TILE;
  let at = (row * tiles + quad / tile) * 2u * tile + quad % tile;
  if (quad >= COLS / 4u) {
    return vec4<f32>();
  }
  return act4(x[at]) * x[at + tile];
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let quad = 4u * id.x;
  if (quad < COLS / 4u) {
    put_half(id.y, id.x, mat4x4<f32>(
      gated_quad(id.y, quad), gated_quad(id.y, quad + 1u), gated_quad(id.y, quad + 2u), gated_quad(id.y, quad + 3u),
    ));
  }
}

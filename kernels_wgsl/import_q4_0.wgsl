// import_q4_0: GGUF's Q4_0 blocks (d: f16; 16 bytes of nibbles) -> weight q4_0
// binding 2 data read_write array<vec4<u32>> [tiles of 16 rows][COLS / 32][16]
// grid    COLS / 2048, rows of the piece
// uses    import import_scale
// why     The nibbles keep GGUF's order within a block, so importing moves words and nothing else.

@group(0) @binding(2) var<storage, read_write> data: array<vec4<u32>>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= params.cols / 32u || id.y >= params.rows) {
    return;
  }
  let at = id.y * params.row_bytes + id.x * 18u;
  let i = target_unit(id.y, id.x);
  put_scale(i / 2u, i, raw_u16(at));
  data[i] = raw_vec4(at + 2u);
}

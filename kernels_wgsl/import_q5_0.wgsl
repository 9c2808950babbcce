// import_q5_0: GGUF's Q5_0 blocks (d: f16; a word of fifth bits; 16 bytes of nibbles) -> weight q5_0
// binding 2 data read_write array<vec4<u32>> [tiles of 16 rows][COLS / 32][16]
// grid    COLS / 2048, rows of the piece
// uses    import import_scale import_fives
// why     The nibbles keep GGUF's order; the fifth bits are sorted once, here, so that matvec need not.

@group(0) @binding(2) var<storage, read_write> data: array<vec4<u32>>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= params.cols / 32u || id.y >= params.rows) {
    return;
  }
  let at = id.y * params.row_bytes + id.x * 22u;
  let i = target_unit(id.y, id.x);
  let rest = (i / 16u) * 24u;
  put_scale(rest + 16u + (i % 16u) / 2u, i, raw_u16(at));
  atomicStore(&scales[rest + i % 16u], reordered_fifths(raw_u32(at + 2u)));
  data[i] = raw_vec4(at + 6u);
}

// import_iq4_nl: GGUF's IQ4_NL blocks (d: f16; 16 bytes of nibbles) -> weight q8_0
// grid    COLS / 2048, rows of the piece
// uses    import_levels
// why     Nibbles number 16 levels: looking them up here keeps the products those of q8_0.

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= params.cols / 32u || id.y >= params.rows) {
    return;
  }
  let at = id.y * params.row_bytes + id.x * 18u;
  put_levels(target_unit(id.y, id.x), at + 2u, raw_u16(at), NON_LINEAR);
}

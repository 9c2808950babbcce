// import_iq4_xs: GGUF's IQ4_XS blocks (d: f16; 8 scales of 6 bits; 128 bytes of nibbles) -> weight q8_0
// grid    COLS / 2048, rows of the piece
// uses    import_levels
// why     A unit's scale is the product of two numbers in the file: multiplying here, and rounding to f16, makes it q8_0.

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= params.cols / 32u || id.y >= params.rows) {
    return;
  }
  let at = id.y * params.row_bytes + (id.x / 8u) * 136u;
  let j = id.x % 8u;
  let low = (raw_u8(at + 4u + j / 2u) >> (4u * (j % 2u))) & 15u;
  let high = (raw_u16(at + 2u) >> (2u * j)) & 3u;
  let d = raw_f16(at) * (f32(low | (high << 4u)) - 32.0);
  put_levels(target_unit(id.y, id.x), at + 8u + 16u * j, pack_nearest(vec2<f32>(d, 0.0)), NON_LINEAR);
}

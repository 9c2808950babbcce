// import_q6_k: GGUF's Q6_K blocks (128 bytes of nibbles; 64 of upper bits; 16 scales: i8; d: f16) -> weight q6
// grid    COLS / 2048, rows of the piece
// uses    import_k import_q6
// why     One thread a unit of 32 columns finds its bits in the super-block of 256.

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= params.cols / 32u || id.y >= params.rows) {
    return;
  }
  let at = id.y * params.row_bytes + (id.x / 8u) * 210u;
  let j = id.x % 8u;
  let values = at + 64u * (j / 4u) + 32u * (j % 2u);
  let uppers = at + 128u + 32u * (j / 4u);
  let shift = 4u * ((j % 4u) / 2u);
  let upper_shift = 2u * (j % 4u);
  let a = raw_bits(values, shift, 0x0F0F0F0Fu) | (raw_bits(uppers, upper_shift, 0x03030303u) << vec4<u32>(4u));
  let b = raw_bits(values + 16u, shift, 0x0F0F0F0Fu) | (raw_bits(uppers + 16u, upper_shift, 0x03030303u) << vec4<u32>(4u));
  put_unit(target_unit(id.y, id.x), a, b, raw_f16(at + 208u), raw_u16(at + 192u + 2u * j));
}

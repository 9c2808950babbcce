// import_q3_k: GGUF's Q3_K blocks (32 bytes of third bits; 64 of twos; 12 of scales; d: f16) -> weight q6
// grid    COLS / 2048, rows of the piece
// uses    import_k import_q6
// why     Too rare for a format of its own: 28 is added to its integers, which count from -4, to make them those of q6.

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= params.cols / 32u || id.y >= params.rows) {
    return;
  }
  let at = id.y * params.row_bytes + (id.x / 8u) * 110u;
  let j = id.x % 8u;
  let values = at + 32u + 32u * (j / 4u);
  let shift = 2u * (j % 4u);
  let a = raw_bits(values, shift, 0x03030303u) | (raw_bits(at, j, 0x01010101u) << vec4<u32>(2u));
  let b = raw_bits(values + 16u, shift, 0x03030303u) | (raw_bits(at + 16u, j, 0x01010101u) << vec4<u32>(2u));
  // Scale s of 16: its low nibble in byte s % 8, two bits more in byte 8 + s % 4.
  let low = (raw_u16(at + 96u + 2u * (j % 4u)) >> (4u * (j / 4u))) & 0x0F0Fu;
  let top = (raw_u16(at + 104u + 2u * (j % 2u)) >> (2u * (j / 2u))) & 0x0303u;
  // Less 32, as i8: bit 5 turns over and becomes the sign. NVIDIA's compiler dies of pack4xI8 here.
  let turned = (low | (top << 4u)) ^ 0x2020u;
  let sign = turned & 0x2020u;
  let scale = turned | (sign << 1u) | (sign << 2u);
  let offset = vec4<u32>(0x1C1C1C1Cu);
  put_unit(target_unit(id.y, id.x), a + offset, b + offset, raw_f16(at + 108u), scale);
}

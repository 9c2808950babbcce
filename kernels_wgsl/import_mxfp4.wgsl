// import_mxfp4: GGUF's MXFP4 blocks (an exponent: e8m0; 16 bytes of nibbles: e2m1) -> weight q8_0
// grid    COLS / 2048, rows of the piece
// uses    import_levels
// why     Twice the floats of 4 bits are integers, and half the power of two is their scale, as far as f16 has it.

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= params.cols / 32u || id.y >= params.rows) {
    return;
  }
  let at = id.y * params.row_bytes + id.x * 17u;
  let exponent = clamp(raw_u8(at), 1u, 142u) - 1u;
  let d = bitcast<f32>(exponent << 23u);
  put_levels(target_unit(id.y, id.x), at + 1u, pack2x16float(vec2<f32>(d, 0.0)), E2M1);
}

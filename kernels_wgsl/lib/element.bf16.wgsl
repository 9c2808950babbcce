// element bf16: number i of the piece

fn element(i: u32) -> f32 {
  return bitcast<f32>(raw_u16(2u * i) << 16u);
}

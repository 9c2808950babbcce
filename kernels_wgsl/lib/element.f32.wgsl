// element f32: number i of the piece

fn element(i: u32) -> f32 {
  return bitcast<f32>(raw[i]);
}

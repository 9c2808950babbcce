// element f16: number i of the piece

fn element(i: u32) -> f32 {
  return unpack2x16float(raw_u16(2u * i)).x;
}

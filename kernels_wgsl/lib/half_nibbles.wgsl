// half_nibbles: the integers of half a unit of nibbles, one a byte

fn half_nibbles(q: vec4<u32>, h: u32) -> vec4<u32> {
  return (q >> vec4<u32>(4u * h)) & vec4<u32>(0x0F0F0F0Fu);
}

// `zero` taken from every byte of integers below 64; no byte borrows from the next.
fn minus(codes: vec4<u32>, zero: u32) -> vec4<u32> {
  return (codes + vec4<u32>(0x80808080u - zero)) ^ vec4<u32>(0x80808080u);
}

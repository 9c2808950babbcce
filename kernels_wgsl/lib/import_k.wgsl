// import_k: what the super-blocks of 256 columns have in common; `at` is a place in `raw`, in bytes
// uses    import import_codes

fn raw_u8(at: u32) -> u32 {
  return (raw[at / 4u] >> (8u * (at % 4u))) & 0xFFu;
}

// By hand where the number is subnormal: super-block scales mostly are, and unpack2x16float may take them for zero.
fn raw_f16(at: u32) -> f32 {
  let half = raw_u16(at);
  let subnormal = f32(half & 0x3FFu) * 0x1p-24 * select(1.0, -1.0, half >= 0x8000u);
  return select(unpack2x16float(half).x, subnormal, (half & 0x7C00u) == 0u);
}

// The nearest pair of f16; pack2x16float itself may round either way.
fn pack_nearest(pair: vec2<f32>) -> u32 {
  let bits = bitcast<vec2<u32>>(pair);
  let even = (bits >> vec2<u32>(13u)) & vec2<u32>(1u);
  return pack2x16float(bitcast<vec2<f32>>((bits + vec2<u32>(0xFFFu) + even) & vec2<u32>(0xFFFFE000u)));
}

// Scale and minimum of unit j of 8, of Q4_K and Q5_K: d and dmin, then 6 bits each in 12 bytes.
fn scale_and_minimum(at: u32, j: u32) -> u32 {
  let a = raw_u8(at + 4u + j % 4u);
  let b = raw_u8(at + 8u + j % 4u);
  let c = raw_u8(at + 12u + j % 4u);
  let first = vec2<u32>(a, b) & vec2<u32>(63u);
  let last = vec2<u32>(c & 15u, c >> 4u) | ((vec2<u32>(a, b) >> vec2<u32>(6u)) << vec2<u32>(4u));
  return pack_nearest(vec2<f32>(raw_f16(at), -raw_f16(at + 2u)) * vec2<f32>(select(last, first, j < 4u)));
}

// `mask` of 16 bytes, each shifted right first.
fn raw_bits(at: u32, shift: u32, mask: u32) -> vec4<u32> {
  return (raw_vec4(at) >> vec4<u32>(shift)) & vec4<u32>(mask);
}

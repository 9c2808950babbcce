// import_fives: the word of fifth bits of GGUF's Q5_0 and Q5_1, column c in bit c, in our order
// uses    import_codes

// Four bits of each component -> bit 4 of the four bytes.
fn spread(bits: vec4<u32>) -> vec4<u32> {
  return (((bits & vec4<u32>(15u)) * 0x00204081u) & vec4<u32>(0x01010101u)) << vec4<u32>(4u);
}

fn reordered_fifths(word: u32) -> u32 {
  let all = vec4<u32>(word);
  return fifth_bits(spread(all >> vec4<u32>(0u, 4u, 8u, 12u)), spread(all >> vec4<u32>(16u, 20u, 24u, 28u)));
}

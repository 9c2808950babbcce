// import_codes: a unit's integers, one a byte, in the order of the columns: 16 in `a`, 16 in `b` -> packed words

// Lower four bits, in GGUF's order: those of `a` below those of `b`.
fn nibbles(a: vec4<u32>, b: vec4<u32>) -> vec4<u32> {
  return (a & vec4<u32>(0x0F0F0F0Fu)) | ((b & vec4<u32>(0x0F0F0F0Fu)) << vec4<u32>(4u));
}

// Bit 0 of the four bytes -> bits 0, 1, 16 and 17: bytes 0 and 2 share a shift, and 1 and 3 the next.
fn ones(word: vec4<u32>) -> vec4<u32> {
  return ((word & vec4<u32>(0x01010101u)) | ((word & vec4<u32>(0x01010101u)) >> vec4<u32>(7u))) & vec4<u32>(0x00030003u);
}

// Bits 0 and 1 of the four bytes -> bits 0 to 3 and 16 to 19, likewise.
fn twos(word: vec4<u32>) -> vec4<u32> {
  return ((word & vec4<u32>(0x03030303u)) | ((word & vec4<u32>(0x03030303u)) >> vec4<u32>(6u))) & vec4<u32>(0x000F000Fu);
}

// Bit 4 of each integer, 4 bits of the halves for each word of nibbles.
fn fifth_bits(a: vec4<u32>, b: vec4<u32>) -> u32 {
  let bits = (ones(a >> vec4<u32>(4u)) | (ones(b >> vec4<u32>(4u)) << vec4<u32>(2u))) << vec4<u32>(0u, 4u, 8u, 12u);
  return bits.x | bits.y | bits.z | bits.w;
}

// Bits 4 and 5 of each integer, 8 bits of the halves for each word of nibbles.
fn upper_bits(a: vec4<u32>, b: vec4<u32>) -> vec2<u32> {
  let bits = (twos(a >> vec4<u32>(4u)) | (twos(b >> vec4<u32>(4u)) << vec4<u32>(4u))) << vec4<u32>(0u, 8u, 0u, 8u);
  return vec2<u32>(bits.x | bits.y, bits.z | bits.w);
}

// Bits 0 and 1 of the 16 integers of a group.
fn packed_twos(a: vec4<u32>) -> u32 {
  let bits = twos(a) << vec4<u32>(0u, 4u, 8u, 12u);
  return bits.x | bits.y | bits.z | bits.w;
}

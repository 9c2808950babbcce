// fives: the 32 int5 values of a unit: nibbles in GGUF's order, and a word of fifth bits
// uses    codes half_nibbles
// why     Fifth bits lie so that a shift brings two of them above their nibbles at once.

// Values 4p to 4p + 3 as 1 + n / 32, from word p of the nibbles and the fifth bits shifted right by 4p.
fn low(word: u32, fifth: u32) -> vec4<f32> {
  return one_plus(
    ((word << 5u) & 0x01E001E0u) | ((fifth << 9u) & 0x02000200u),
    ((word >> 3u) & 0x01E001E0u) | ((fifth << 8u) & 0x02000200u),
  );
}

// Values 16 + 4p to 16 + 4p + 3.
fn high(word: u32, fifth: u32) -> vec4<f32> {
  return one_plus(
    ((word << 1u) & 0x01E001E0u) | ((fifth << 7u) & 0x02000200u),
    ((word >> 7u) & 0x01E001E0u) | ((fifth << 6u) & 0x02000200u),
  );
}

// (sum of values times inputs, sum of inputs) of the unit whose inputs begin at quad `first`.
fn five_dot(q: vec4<u32>, f: u32, first: u32) -> vec2<f32> {
  let a = half_input(first);
  let b = half_input(first + 4u);
  let product = half_dot(mat4x4<f32>(low(q.x, f), low(q.y, f >> 4u), low(q.z, f >> 8u), low(q.w, f >> 12u)), a)
    + half_dot(mat4x4<f32>(high(q.x, f), high(q.y, f >> 4u), high(q.z, f >> 8u), high(q.w, f >> 12u)), b);
  let total = half_sum(a + b);
  return vec2<f32>(32.0 * (product - total), total);
}

// Values of word p times d, plus m: quads p and p + 4.
fn five_quads(word: u32, fifth: u32, d: f32, m: f32) -> array<vec4<f32>, 2> {
  let scale = vec4<f32>(32.0 * d);
  let offset = vec4<f32>(m - 32.0 * d);
  return array<vec4<f32>, 2>(fma(low(word, fifth), scale, offset), fma(high(word, fifth), scale, offset));
}

// The integers of half h of a unit, one a byte.
fn half_fives(q: vec4<u32>, f: u32, h: u32) -> vec4<u32> {
  // The fifth bits of bytes 0 and 2 lie in bits 0 and 16, those of bytes 1 and 3 beside them.
  let fifth = vec4<u32>(f) >> (vec4<u32>(0u, 4u, 8u, 12u) + vec4<u32>(2u * h));
  let bits = ((fifth & vec4<u32>(0x00010001u)) << vec4<u32>(4u)) | ((fifth & vec4<u32>(0x00020002u)) << vec4<u32>(11u));
  return half_nibbles(q, h) | bits;
}

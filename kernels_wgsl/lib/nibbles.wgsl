// nibbles: the 32 int4 values of a unit, in GGUF's order
// why     Nibbles go into the mantissa of 1.0 in f16, two at once: integer-to-float conversion is slow on many GPUs.

// Two nibbles n at bits 6-9 of each half -> 1 + n / 16.
fn mantissas(word: u32) -> vec2<f32> {
  return unpack2x16float((word & 0x03C003C0u) | 0x3C003C00u);
}

// Low nibbles of the four bytes, as 1 + n / 16: values 4p to 4p + 3 of the unit for word p.
fn low(word: u32) -> vec4<f32> {
  let even = mantissas(word << 6u);
  let odd = mantissas(word >> 2u);
  return vec4<f32>(even.x, odd.x, even.y, odd.y);
}

// High nibbles: values 16 + 4p to 16 + 4p + 3.
fn high(word: u32) -> vec4<f32> {
  let even = mantissas(word << 2u);
  let odd = mantissas(word >> 6u);
  return vec4<f32>(even.x, odd.x, even.y, odd.y);
}

// (sum of nibbles times inputs, sum of inputs) of the unit whose inputs begin at quad `first`.
// Written out: a loop over q's components would put q into memory.
fn nibble_dot(q: vec4<u32>, first: u32) -> vec2<f32> {
  let x0 = input_quad(first);
  let x1 = input_quad(first + 1u);
  let x2 = input_quad(first + 2u);
  let x3 = input_quad(first + 3u);
  let x4 = input_quad(first + 4u);
  let x5 = input_quad(first + 5u);
  let x6 = input_quad(first + 6u);
  let x7 = input_quad(first + 7u);
  let product = dot(low(q.x), x0) + dot(low(q.y), x1) + dot(low(q.z), x2) + dot(low(q.w), x3)
    + dot(high(q.x), x4) + dot(high(q.y), x5) + dot(high(q.z), x6) + dot(high(q.w), x7);
  let total = dot(x0 + x1 + x2 + x3 + x4 + x5 + x6 + x7, vec4<f32>(1.0));
  return vec2<f32>(16.0 * (product - total), total);
}

// Nibbles of word p times d, plus m: quads p and p + 4.
fn nibble_quads(word: u32, d: f32, m: f32) -> array<vec4<f32>, 2> {
  let scale = vec4<f32>(16.0 * d);
  let offset = vec4<f32>(m - 16.0 * d);
  return array<vec4<f32>, 2>(fma(low(word), scale, offset), fma(high(word), scale, offset));
}

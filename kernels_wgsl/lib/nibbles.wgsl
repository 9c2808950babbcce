// nibbles: the 32 int4 values of a unit, in GGUF's order
// uses    codes half_nibbles

// Low nibbles of the four bytes, as 1 + n / 16: values 4p to 4p + 3 of the unit for word p.
fn low(word: u32) -> vec4<f32> {
  return one_plus((word << 6u) & 0x03C003C0u, (word >> 2u) & 0x03C003C0u);
}

// High nibbles: values 16 + 4p to 16 + 4p + 3.
fn high(word: u32) -> vec4<f32> {
  return one_plus((word << 2u) & 0x03C003C0u, (word >> 6u) & 0x03C003C0u);
}

// (sum of nibbles times inputs, sum of inputs) of the unit whose inputs begin at quad `first`.
fn nibble_dot(q: vec4<u32>, first: u32) -> vec2<f32> {
  let a = half_input(first);
  let b = half_input(first + 4u);
  let product = half_dot(mat4x4<f32>(low(q.x), low(q.y), low(q.z), low(q.w)), a)
    + half_dot(mat4x4<f32>(high(q.x), high(q.y), high(q.z), high(q.w)), b);
  let total = half_sum(a + b);
  return vec2<f32>(16.0 * (product - total), total);
}

// Nibbles of word p times d, plus m: quads p and p + 4.
fn nibble_quads(word: u32, d: f32, m: f32) -> array<vec4<f32>, 2> {
  let scale = vec4<f32>(16.0 * d);
  let offset = vec4<f32>(m - 16.0 * d);
  return array<vec4<f32>, 2>(fma(low(word), scale, offset), fma(high(word), scale, offset));
}

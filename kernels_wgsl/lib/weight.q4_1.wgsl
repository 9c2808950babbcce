// weight q4_1: int4 with scale and minimum a group of 32, w = d * q + m (GGUF's Q4_1, without loss)
// binding 0 weight_data   read array<vec4<u32>> [tiles of 16 rows][COLS / 32][16]
// binding 1 weight_scales read array<u32>       [tiles of 16 rows][COLS / 32][16] pairs (d, m) of f16
// why     Nibbles go into the mantissa of 1.0 in f16, two at once: integer-to-float conversion is slow on many GPUs.

@group(0) @binding(0) var<storage, read> weight_data: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> weight_scales: array<u32>;

// Two nibbles n at bits 6-9 of each half -> 1 + n / 16.
fn mantissas(word: u32) -> vec2<f32> {
  return unpack2x16float((word & 0x03C003C0u) | 0x3C003C00u);
}

// Low nibbles of the four bytes: values 4p to 4p + 3 of the unit for word p.
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

// Sum of weights times inputs over the 32 columns of unit i, whose inputs begin at quad `first`.
// Written out: a loop over q's components would put q into memory.
fn weight_dot(i: u32, first: u32) -> f32 {
  let q = weight_data[i];
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
  let scale = unpack2x16float(weight_scales[i]);
  return scale.x * 16.0 * product + (scale.y - 16.0 * scale.x) * total;
}

// The weights of unit i at quads p and p + 4.
fn weight_quads(i: u32, p: u32) -> array<vec4<f32>, 2> {
  let word = weight_data[i][p];
  let scale = unpack2x16float(weight_scales[i]);
  let d = vec4<f32>(16.0 * scale.x);
  let m = vec4<f32>(scale.y - 16.0 * scale.x);
  return array<vec4<f32>, 2>(fma(low(word), d, m), fma(high(word), d, m));
}

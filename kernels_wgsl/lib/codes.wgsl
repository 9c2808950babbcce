// codes: small integers in the mantissas of f16, two at once, and sums over half a unit, 16 columns
// why     Integer-to-float conversion is slow on many GPUs; matrices whose columns are named stay in registers.

// Integers n in the ten mantissa bits of each half -> 1 + n / 1024, in the order of the bytes they come from.
fn one_plus(even: u32, odd: u32) -> vec4<f32> {
  let a = unpack2x16float(even | 0x3C003C00u);
  let b = unpack2x16float(odd | 0x3C003C00u);
  return vec4<f32>(a.x, b.x, a.y, b.y);
}

// Four quads of inputs from quad `first`.
fn half_input(first: u32) -> mat4x4<f32> {
  return mat4x4<f32>(input_quad(first), input_quad(first + 1u), input_quad(first + 2u), input_quad(first + 3u));
}

fn half_dot(w: mat4x4<f32>, x: mat4x4<f32>) -> f32 {
  return dot(w[0], x[0]) + dot(w[1], x[1]) + dot(w[2], x[2]) + dot(w[3], x[3]);
}

fn half_sum(x: mat4x4<f32>) -> f32 {
  return dot(x[0] + x[1] + x[2] + x[3], vec4<f32>(1.0));
}

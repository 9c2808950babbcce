// pack: activations as 8-bit integers, with a scale for each half unit (16 columns)
// needs   packed_4x8_integer_dot_product
// why     GGUF's Q8_0 scales 32 columns; 16 halve the error and fit weights that have a scale for 16 (Q6_K, Q2_K).

struct Packed {
  codes: vec4<u32>,   // four integers a word, in the order of the columns
  factor: vec2<f32>,  // scale; scale times the sum of the integers
}

// The largest magnitude, by its bits: max() of floats may drop what is not a number, which must reach the scale.
fn most_of(v: mat4x4<f32>) -> f32 {
  let low = max(bitcast<vec4<u32>>(abs(v[0])), bitcast<vec4<u32>>(abs(v[1])));
  let most = max(low, max(bitcast<vec4<u32>>(abs(v[2])), bitcast<vec4<u32>>(abs(v[3]))));
  return bitcast<f32>(max(max(most.x, most.y), max(most.z, most.w)));
}

// Sum of the products of 16 pairs of integers.
fn int8_sum(a: vec4<u32>, b: vec4<u32>) -> i32 {
  return dot4I8Packed(a.x, b.x) + dot4I8Packed(a.y, b.y) + dot4I8Packed(a.z, b.z) + dot4I8Packed(a.w, b.w);
}

// 16 numbers, four a column.
fn pack(v: mat4x4<f32>) -> Packed {
  let most = most_of(v);
  let u = v * select(0.0, 1.0 / most, most > 0.0);
  let codes = vec4<u32>(pack4x8snorm(u[0]), pack4x8snorm(u[1]), pack4x8snorm(u[2]), pack4x8snorm(u[3]));
  let scale = most / 127.0;
  return Packed(codes, vec2<f32>(scale, scale * f32(int8_sum(codes, vec4<u32>(0x01010101u)))));
}

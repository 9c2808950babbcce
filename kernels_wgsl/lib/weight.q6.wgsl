// weight q6: symmetric int6 with one scale a group of 16, w = d * s * (q - 32) (GGUF's Q6_K and Q3_K, without loss)
// binding 0 weight_data   read array<vec4<u32>> [tiles of 16 rows][COLS / 32][16] nibbles, as in q4_0
// binding 1 weight_scales read array<u32>       [tiles of 16 rows][COLS / 32][3][16] upper bits (two words), 1024 d in f16 and two s in i8
// uses    codes half_nibbles
// why     7 bits a weight. d is mostly subnormal in f16, which a device may take for zero: 1024 d is not.

@group(0) @binding(0) var<storage, read> weight_data: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> weight_scales: array<u32>;

// d times 64, which the mantissas are short of, and both s.
fn weight_scale(at: u32) -> vec2<f32> {
  let word = weight_scales[at + 32u];
  return unpack2x16float(word).x / 16.0 * vec2<f32>(unpack4xI8(word).zw);
}

// Values 4p to 4p + 3 as 1 + n / 64, from word p of the nibbles; `upper` begins with the word's own upper bits.
fn low(word: u32, upper: u32) -> vec4<f32> {
  return one_plus(
    ((word << 4u) & 0x00F000F0u) | ((upper << 8u) & 0x03000300u),
    ((word >> 4u) & 0x00F000F0u) | ((upper << 6u) & 0x03000300u),
  );
}

// Values 16 + 4p to 16 + 4p + 3.
fn high(word: u32, upper: u32) -> vec4<f32> {
  return one_plus(
    (word & 0x00F000F0u) | ((upper << 4u) & 0x03000300u),
    ((word >> 8u) & 0x00F000F0u) | ((upper << 2u) & 0x03000300u),
  );
}

// Sum of weights times inputs over the 32 columns of unit i, whose inputs begin at quad `first`.
fn weight_dot(i: u32, first: u32) -> f32 {
  let at = (i / 16u) * 48u + i % 16u;
  let q = weight_data[i];
  let u = weight_scales[at];
  let v = weight_scales[at + 16u];
  let a = half_input(first);
  let b = half_input(first + 4u);
  let products = vec2<f32>(
    half_dot(mat4x4<f32>(low(q.x, u), low(q.y, u >> 8u), low(q.z, v), low(q.w, v >> 8u)), a),
    half_dot(mat4x4<f32>(high(q.x, u), high(q.y, u >> 8u), high(q.z, v), high(q.w, v >> 8u)), b),
  );
  return dot(weight_scale(at), products - 1.5 * vec2<f32>(half_sum(a), half_sum(b)));
}

// The weights of unit i at quads p and p + 4.
fn weight_quads(i: u32, p: u32) -> array<vec4<f32>, 2> {
  let at = (i / 16u) * 48u + i % 16u;
  let word = weight_data[i][p];
  let upper = weight_scales[at + 16u * (p / 2u)] >> (8u * (p % 2u));
  let d = weight_scale(at);
  return array<vec4<f32>, 2>(d.x * (low(word, upper) - 1.5), d.y * (high(word, upper) - 1.5));
}

const WEIGHT_OFFSET = false;

// The 16 integers of half h of unit i, one a byte, and what they mean: weight = factors.x * integer + factors.y.
fn weight_codes(i: u32, h: u32) -> vec4<u32> {
  let at = (i / 16u) * 48u + i % 16u;
  let upper = vec4<u32>(weight_scales[at], weight_scales[at] >> 8u, weight_scales[at + 16u], weight_scales[at + 16u] >> 8u)
    >> vec4<u32>(4u * h);
  // Bytes 0 and 2 have theirs in bits 0, 1, 16 and 17, bytes 1 and 3 in the two bits above each.
  let bits = ((upper & vec4<u32>(0x00030003u)) << vec4<u32>(4u)) | ((upper & vec4<u32>(0x000C000Cu)) << vec4<u32>(10u));
  return minus(half_nibbles(weight_data[i], h) | bits, 0x20202020u);
}

fn weight_factors(i: u32, h: u32) -> vec2<f32> {
  let d = weight_scale((i / 16u) * 48u + i % 16u) / 64.0;
  return vec2<f32>(select(d.x, d.y, h == 1u), 0.0);
}

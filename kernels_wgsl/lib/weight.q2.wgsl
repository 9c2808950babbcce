// weight q2: int2 with scale and minimum a group of 16, w = d * s * q - m * t (GGUF's Q2_K, without loss)
// binding 0 weight_data   read array<vec2<u32>> [tiles of 16 rows][COLS / 32][16] a word a group
// binding 1 weight_scales read array<vec2<u32>> [tiles of 16 rows][COLS / 32][16] pair (1024 d, -1024 m) of f16; a byte a group: s below t
// uses    codes
// why     4 bits a weight. d is often subnormal in f16, which a device may take for zero: 1024 d is not.

@group(0) @binding(0) var<storage, read> weight_data: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read> weight_scales: array<vec2<u32>>;

// Values 4p to 4p + 3 of a group as 1 + n / 4, from its word shifted right by 4p.
fn twos(word: u32) -> vec4<f32> {
  return one_plus((word << 8u) & 0x03000300u, (word << 6u) & 0x03000300u);
}

// (d * s, -m * t) of both groups.
fn weight_scale(scales: vec2<u32>) -> array<vec2<f32>, 2> {
  let d = unpack2x16float(scales.x) / 1024.0;
  let s = vec4<f32>((vec4<u32>(scales.y) >> vec4<u32>(0u, 4u, 8u, 12u)) & vec4<u32>(15u));
  return array<vec2<f32>, 2>(d * s.xy, d * s.zw);
}

fn group_dot(word: u32, scale: vec2<f32>, first: u32) -> f32 {
  let x = half_input(first);
  let product = half_dot(mat4x4<f32>(twos(word), twos(word >> 4u), twos(word >> 8u), twos(word >> 12u)), x);
  let total = half_sum(x);
  return dot(scale, vec2<f32>(4.0 * (product - total), total));
}

fn group_quad(word: u32, scale: vec2<f32>) -> vec4<f32> {
  return fma(twos(word), vec4<f32>(4.0 * scale.x), vec4<f32>(scale.y - 4.0 * scale.x));
}

// Sum of weights times inputs over the 32 columns of unit i, whose inputs begin at quad `first`.
fn weight_dot(i: u32, first: u32) -> f32 {
  let words = weight_data[i];
  let scale = weight_scale(weight_scales[i]);
  return group_dot(words.x, scale[0], first) + group_dot(words.y, scale[1], first + 4u);
}

// The weights of unit i at quads p and p + 4.
fn weight_quads(i: u32, p: u32) -> array<vec4<f32>, 2> {
  let words = weight_data[i] >> vec2<u32>(4u * p);
  let scale = weight_scale(weight_scales[i]);
  return array<vec4<f32>, 2>(group_quad(words.x, scale[0]), group_quad(words.y, scale[1]));
}

const WEIGHT_OFFSET = true;

// The 16 integers of half h of unit i, one a byte, and what they mean: weight = factors.x * integer + factors.y.
fn weight_codes(i: u32, h: u32) -> vec4<u32> {
  let word = vec4<u32>(select(weight_data[i].x, weight_data[i].y, h == 1u)) >> vec4<u32>(0u, 4u, 8u, 12u);
  return (word & vec4<u32>(0x00030003u)) | ((word & vec4<u32>(0x000C000Cu)) << vec4<u32>(6u));
}

fn weight_factors(i: u32, h: u32) -> vec2<f32> {
  let scale = weight_scale(weight_scales[i]);
  return select(scale[0], scale[1], h == 1u);
}

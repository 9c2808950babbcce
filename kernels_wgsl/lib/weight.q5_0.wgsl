// weight q5_0: symmetric int5 with one scale a group of 32, w = d * (q - 16) (GGUF's Q5_0, without loss)
// binding 0 weight_data   read array<vec4<u32>> [tiles of 16 rows][COLS / 32][16] nibbles
// binding 1 weight_scales read array<u32>       [tiles of 16 rows][COLS / 32][24] 16 words of fifth bits, 8 pairs of rows' d in f16
// uses    fives
// why     5.5 bits a weight. Fifth bits lie with the scales, so that both buffers are read in whole vectors or words.

@group(0) @binding(0) var<storage, read> weight_data: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> weight_scales: array<u32>;

fn weight_fifth(i: u32) -> u32 {
  return weight_scales[(i / 16u) * 24u + i % 16u];
}

fn weight_scale(i: u32) -> f32 {
  let pair = unpack2x16float(weight_scales[(i / 16u) * 24u + 16u + (i % 16u) / 2u]);
  return select(pair.x, pair.y, (i & 1u) == 1u);
}

// Sum of weights times inputs over the 32 columns of unit i, whose inputs begin at quad `first`.
fn weight_dot(i: u32, first: u32) -> f32 {
  return weight_scale(i) * dot(vec2<f32>(1.0, -16.0), five_dot(weight_data[i], weight_fifth(i), first));
}

// The weights of unit i at quads p and p + 4.
fn weight_quads(i: u32, p: u32) -> array<vec4<f32>, 2> {
  let d = weight_scale(i);
  return five_quads(weight_data[i][p], weight_fifth(i) >> (4u * p), d, -16.0 * d);
}

const WEIGHT_OFFSET = false;

// The 16 integers of half h of unit i, one a byte, and what they mean: weight = factors.x * integer + factors.y.
fn weight_codes(i: u32, h: u32) -> vec4<u32> {
  return minus(half_fives(weight_data[i], weight_fifth(i), h), 0x10101010u);
}

fn weight_factors(i: u32, h: u32) -> vec2<f32> {
  return vec2<f32>(weight_scale(i), 0.0);
}

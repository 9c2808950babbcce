// weight q4_1: int4 with scale and minimum a group of 32, w = d * q + m (GGUF's Q4_1, without loss)
// binding 0 weight_data   read array<vec4<u32>> [tiles of 16 rows][COLS / 32][16]
// binding 1 weight_scales read array<u32>       [tiles of 16 rows][COLS / 32][16] pairs (d, m) of f16
// uses    nibbles
// why     A minimum costs half a bit a weight and saves files that have one from being quantised again.

@group(0) @binding(0) var<storage, read> weight_data: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> weight_scales: array<u32>;

// Sum of weights times inputs over the 32 columns of unit i, whose inputs begin at quad `first`.
fn weight_dot(i: u32, first: u32) -> f32 {
  return dot(unpack2x16float(weight_scales[i]), nibble_dot(weight_data[i], first));
}

// The weights of unit i at quads p and p + 4.
fn weight_quads(i: u32, p: u32) -> array<vec4<f32>, 2> {
  let scale = unpack2x16float(weight_scales[i]);
  return nibble_quads(weight_data[i][p], scale.x, scale.y);
}

const WEIGHT_OFFSET = true;

// The 16 integers of half h of unit i, one a byte, and what they mean: weight = factors.x * integer + factors.y.
fn weight_codes(i: u32, h: u32) -> vec4<u32> {
  return half_nibbles(weight_data[i], h);
}

fn weight_factors(i: u32, h: u32) -> vec2<f32> {
  return unpack2x16float(weight_scales[i]);
}

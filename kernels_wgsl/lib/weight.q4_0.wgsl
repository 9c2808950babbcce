// weight q4_0: symmetric int4 with one scale a group of 32, w = d * (q - 8) (GGUF's Q4_0, without loss)
// binding 0 weight_data   read array<vec4<u32>> [tiles of 16 rows][COLS / 32][16]
// binding 1 weight_scales read array<u32>       [tiles of 16 rows][COLS / 32][8] pairs of rows' d in f16
// uses    nibbles
// why     4.5 bits a weight, and no minimum to add.

@group(0) @binding(0) var<storage, read> weight_data: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> weight_scales: array<u32>;

fn weight_scale(i: u32) -> f32 {
  let pair = unpack2x16float(weight_scales[i / 2u]);
  return select(pair.x, pair.y, (i & 1u) == 1u);
}

// Sum of weights times inputs over the 32 columns of unit i, whose inputs begin at quad `first`.
fn weight_dot(i: u32, first: u32) -> f32 {
  return weight_scale(i) * dot(vec2<f32>(1.0, -8.0), nibble_dot(weight_data[i], first));
}

// The weights of unit i at quads p and p + 4.
fn weight_quads(i: u32, p: u32) -> array<vec4<f32>, 2> {
  let d = weight_scale(i);
  return nibble_quads(weight_data[i][p], d, -8.0 * d);
}

const WEIGHT_OFFSET = false;

// The 16 integers of half h of unit i, one a byte, and what they mean: weight = factors.x * integer + factors.y.
fn weight_codes(i: u32, h: u32) -> vec4<u32> {
  return minus(half_nibbles(weight_data[i], h), 0x08080808u);
}

fn weight_factors(i: u32, h: u32) -> vec2<f32> {
  return vec2<f32>(weight_scale(i), 0.0);
}

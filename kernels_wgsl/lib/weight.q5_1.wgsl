// weight q5_1: int5 with scale and minimum a group of 32, w = d * q + m (GGUF's Q5_1 without loss, Q5_K with scales in f16)
// binding 0 weight_data   read array<vec4<u32>> [tiles of 16 rows][COLS / 32][16] nibbles
// binding 1 weight_scales read array<vec2<u32>> [tiles of 16 rows][COLS / 32][16] fifth bits, pair (d, m) of f16
// uses    fives
// why     6 bits a weight. Fifth bits lie with the scales: two loads a unit bring everything.

@group(0) @binding(0) var<storage, read> weight_data: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> weight_scales: array<vec2<u32>>;

// Sum of weights times inputs over the 32 columns of unit i, whose inputs begin at quad `first`.
fn weight_dot(i: u32, first: u32) -> f32 {
  let rest = weight_scales[i];
  return dot(unpack2x16float(rest.y), five_dot(weight_data[i], rest.x, first));
}

// The weights of unit i at quads p and p + 4.
fn weight_quads(i: u32, p: u32) -> array<vec4<f32>, 2> {
  let rest = weight_scales[i];
  let scale = unpack2x16float(rest.y);
  return five_quads(weight_data[i][p], rest.x >> (4u * p), scale.x, scale.y);
}

const WEIGHT_OFFSET = true;

// The 16 integers of half h of unit i, one a byte, and what they mean: weight = factors.x * integer + factors.y.
fn weight_codes(i: u32, h: u32) -> vec4<u32> {
  return half_fives(weight_data[i], weight_scales[i].x, h);
}

fn weight_factors(i: u32, h: u32) -> vec2<f32> {
  return unpack2x16float(weight_scales[i].y);
}

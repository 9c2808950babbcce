// weight q8_0: symmetric int8 with one scale a group of 32, w = d * q (GGUF's Q8_0, without loss)
// binding 0 weight_data   read array<vec4<u32>> [tiles of 16 rows][COLS / 32][2][16]
// binding 1 weight_scales read array<u32>       [tiles of 16 rows][COLS / 32][8] pairs of rows' d in f16
// why     The two halves of a unit lie 16 vectors apart, so that 16 threads read 16 neighbours.

@group(0) @binding(0) var<storage, read> weight_data: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> weight_scales: array<u32>;

fn weight_scale(i: u32) -> f32 {
  let pair = unpack2x16float(weight_scales[i / 2u]);
  return select(pair.x, pair.y, (i & 1u) == 1u);
}

fn bytes(word: u32) -> vec4<f32> {
  return vec4<f32>(unpack4xI8(word));
}

// Sum of weights times inputs over the 32 columns of unit i, whose inputs begin at quad `first`.
// Written out: a loop over the components would put the vectors into memory.
fn weight_dot(i: u32, first: u32) -> f32 {
  let at = (i / 16u) * 32u + i % 16u;
  let a = weight_data[at];
  let b = weight_data[at + 16u];
  let product = dot(bytes(a.x), input_quad(first)) + dot(bytes(a.y), input_quad(first + 1u))
    + dot(bytes(a.z), input_quad(first + 2u)) + dot(bytes(a.w), input_quad(first + 3u))
    + dot(bytes(b.x), input_quad(first + 4u)) + dot(bytes(b.y), input_quad(first + 5u))
    + dot(bytes(b.z), input_quad(first + 6u)) + dot(bytes(b.w), input_quad(first + 7u));
  return weight_scale(i) * product;
}

// The weights of unit i at quads p and p + 4.
fn weight_quads(i: u32, p: u32) -> array<vec4<f32>, 2> {
  let at = (i / 16u) * 32u + i % 16u;
  let d = weight_scale(i);
  return array<vec4<f32>, 2>(d * bytes(weight_data[at][p]), d * bytes(weight_data[at + 16u][p]));
}

const WEIGHT_OFFSET = false;

// The 16 integers of half h of unit i, one a byte, and what they mean: weight = factors.x * integer + factors.y.
fn weight_codes(i: u32, h: u32) -> vec4<u32> {
  return weight_data[(i / 16u) * 32u + i % 16u + 16u * h];
}

fn weight_factors(i: u32, h: u32) -> vec2<f32> {
  return vec2<f32>(weight_scale(i), 0.0);
}

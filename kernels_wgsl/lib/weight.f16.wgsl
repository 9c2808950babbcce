// weight f16: half precision, packed two to a word
// binding 0 weight_data read array<vec2<u32>> [tiles of 16 rows][COLS / 32][8][16]
// why     unpack2x16float is core WGSL: no shader-f16 is needed to read halves.

@group(0) @binding(0) var<storage, read> weight_data: array<vec2<u32>>;

fn weight_quad(at: u32) -> vec4<f32> {
  let pair = weight_data[at];
  return vec4<f32>(unpack2x16float(pair.x), unpack2x16float(pair.y));
}

// Sum of weights times inputs over the 32 columns of unit i, whose inputs begin at quad `first`.
fn weight_dot(i: u32, first: u32) -> f32 {
  let at = (i / 16u) * 128u + i % 16u;
  var product = 0.0;
  for (var p = 0u; p < 8u; p++) {
    product += dot(weight_quad(at + 16u * p), input_quad(first + p));
  }
  return product;
}

// The weights of unit i at quads p and p + 4.
fn weight_quads(i: u32, p: u32) -> array<vec4<f32>, 2> {
  let at = (i / 16u) * 128u + i % 16u;
  return array<vec4<f32>, 2>(weight_quad(at + 16u * p), weight_quad(at + 16u * (p + 4u)));
}

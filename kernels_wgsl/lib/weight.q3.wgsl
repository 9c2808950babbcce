// weight q3: symmetric int3 with one scale a group of 40, w = d * (q - 3) (MLC's q3f16_1, without loss)
// binding 0 weight_data   read array<vec4<u32>> [tiles of 16 rows][COLS / 32][16] nibbles, as in q4_0: q, and whose scale it has in the fourth bit
// binding 1 weight_scales read array<u32>       [tiles of 16 rows][COLS / 32][16] pairs of f16: of a unit's first and last column
// uses    nibbles
// why     5 bits a weight. Groups end between quads, so four columns always share a scale.

@group(0) @binding(0) var<storage, read> weight_data: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> weight_scales: array<u32>;

// Sum of weights times inputs over the 32 columns of unit i, whose inputs begin at quad `first`.
fn weight_dot(i: u32, first: u32) -> f32 {
  var sum = 0.0;
  for (var p = 0u; p < 4u; p++) {
    let w = weight_quads(i, p);
    sum += dot(w[0], input_quad(first + p)) + dot(w[1], input_quad(first + p + 4u));
  }
  return sum;
}

// The weights of unit i at quads p and p + 4.
fn weight_quads(i: u32, p: u32) -> array<vec4<f32>, 2> {
  let scales = unpack2x16float(weight_scales[i]);
  let word = weight_data[i][p];
  let codes = word & 0x77777777u;
  let d = select(scales.x, scales.y, (word & 0x08u) != 0u);
  let e = select(scales.x, scales.y, (word & 0x80u) != 0u);
  return array<vec4<f32>, 2>((16.0 * d) * (low(codes) - 1.1875), (16.0 * e) * (high(codes) - 1.1875));
}

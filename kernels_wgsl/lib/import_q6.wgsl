// import_q6: writes one unit of weight q6
// binding 2 data   read_write array<vec4<u32>> [tiles of 16 rows][COLS / 32][16]
// binding 3 scales read_write array<u32>       [tiles of 16 rows][COLS / 32][3][16]
// uses    import_codes

@group(0) @binding(2) var<storage, read_write> data: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> scales: array<u32>;

// a, b: integers of the first and the last 16 columns, one a byte. d: the block's scale; s: those of a and b, two bytes.
fn put_unit(i: u32, a: vec4<u32>, b: vec4<u32>, d: f32, s: u32) {
  let at = (i / 16u) * 48u + i % 16u;
  let upper = upper_bits(a, b);
  data[i] = nibbles(a, b);
  scales[at] = upper.x;
  scales[at + 16u] = upper.y;
  scales[at + 32u] = pack2x16float(vec2<f32>(1024.0 * d, 0.0)) | (s << 16u);
}

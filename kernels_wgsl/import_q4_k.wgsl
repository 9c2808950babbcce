// import_q4_k: GGUF's Q4_K blocks (d, dmin: f16; 12 bytes of scales; 128 of nibbles) -> weight q4_1
// binding 2 data   read_write array<vec4<u32>> [tiles of 16 rows][COLS / 32][16]
// binding 3 scales read_write array<u32>       [tiles of 16 rows][COLS / 32][16] pairs (d, m) of f16
// grid    COLS / 2048, rows of the piece
// uses    import_k
// why     A unit's scale is the product of two numbers in the file: multiplying here, and rounding to f16, makes it q4_1.

@group(0) @binding(2) var<storage, read_write> data: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> scales: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= params.cols / 32u || id.y >= params.rows) {
    return;
  }
  let at = id.y * params.row_bytes + (id.x / 8u) * 144u;
  let j = id.x % 8u;
  let i = target_unit(id.y, id.x);
  let values = at + 16u + (j / 2u) * 32u;  // low nibbles: unit j, high: j + 1
  let shift = 4u * (j % 2u);
  scales[i] = scale_and_minimum(at, j);
  data[i] = nibbles(raw_bits(values, shift, 0x0F0F0F0Fu), raw_bits(values + 16u, shift, 0x0F0F0F0Fu));
}

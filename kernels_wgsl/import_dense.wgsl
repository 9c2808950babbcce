// import_dense: rows of F32, F16 or BF16 -> weight f32, f16 or bf16
// binding 2 data read_write array<u32> [tiles of 16 rows][COLS / 32][8][16][QUAD_WORDS]
// grid    COLS / 256, rows of the piece
// uses    import
// why     One thread a quad of columns; columns beyond COLS stay zero.

override QUAD_WORDS: u32;  // words of four values: 4 in f32, 2 in f16 and bf16

@group(0) @binding(2) var<storage, read_write> data: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= params.cols / 4u || id.y >= params.rows) {
    return;
  }
  let source = id.y * (params.row_bytes / 4u) + id.x * QUAD_WORDS;
  let i = target_unit(id.y, id.x / 8u);
  let to = ((i / 16u) * 128u + (id.x % 8u) * 16u + i % 16u) * QUAD_WORDS;
  for (var word = 0u; word < QUAD_WORDS; word++) {
    data[to + word] = raw[source + word];
  }
}

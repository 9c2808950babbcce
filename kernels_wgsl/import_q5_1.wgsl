// import_q5_1: GGUF's Q5_1 blocks (d, m: f16; a word of fifth bits; 16 bytes of nibbles) -> weight q5_1
// binding 2 data   read_write array<vec4<u32>> [tiles of 16 rows][COLS / 32][16]
// binding 3 scales read_write array<vec2<u32>> [tiles of 16 rows][COLS / 32][16] fifth bits, pair (d, m) of f16
// grid    COLS / 2048, rows of the piece
// uses    import import_fives
// why     The nibbles keep GGUF's order; the fifth bits are sorted once, here, so that matvec need not.

@group(0) @binding(2) var<storage, read_write> data: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> scales: array<vec2<u32>>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= params.cols / 32u || id.y >= params.rows) {
    return;
  }
  let at = id.y * params.row_bytes + id.x * 24u;
  let i = target_unit(id.y, id.x);
  scales[i] = vec2<u32>(reordered_fifths(raw_u32(at + 4u)), raw_u32(at));
  data[i] = raw_vec4(at + 8u);
}

// import_q2_k: GGUF's Q2_K blocks (16 bytes of scales; 64 of twos; d, dmin: f16) -> weight q2
// binding 2 data   read_write array<vec2<u32>> [tiles of 16 rows][COLS / 32][16] a word a group of 16
// binding 3 scales read_write array<vec2<u32>> [tiles of 16 rows][COLS / 32][16] pair (1024 d, -1024 m) of f16; a byte a group: s below t
// grid    COLS / 2048, rows of the piece
// uses    import_k
// why     A byte of the scales has a group's scale in its low and its minimum in its high nibble; both are kept so.

@group(0) @binding(2) var<storage, read_write> data: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> scales: array<vec2<u32>>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= params.cols / 32u || id.y >= params.rows) {
    return;
  }
  let at = id.y * params.row_bytes + (id.x / 8u) * 84u;
  let j = id.x % 8u;
  let i = target_unit(id.y, id.x);
  let values = at + 16u + 32u * (j / 4u);
  let shift = 2u * (j % 4u);
  let d = vec2<f32>(raw_f16(at + 80u), -raw_f16(at + 82u));
  data[i] = vec2<u32>(
    packed_twos(raw_bits(values, shift, 0x03030303u)),
    packed_twos(raw_bits(values + 16u, shift, 0x03030303u)),
  );
  scales[i] = vec2<u32>(pack2x16float(1024.0 * d), raw_u16(at + 2u * j));
}

// import_mlc_q4: MLC's 4 bits (eight columns a word, the first in the lowest bits; w = d (q - 7)) -> weight q4_0
// binding 2 data read_write array<vec4<u32>> [tiles of 16 rows][COLS / 32][16]
// grid    COLS / 2048, rows of the piece
// uses    import_mlc import_codes
// why     d (q - 7) is d ((q + 1) - 8): without loss, as MLC's integers end at 14. A 15 in a file is taken for 14.

@group(0) @binding(2) var<storage, read_write> data: array<vec4<u32>>;

// 16 bits -> the four integers of q4_0 that they mean, one a byte.
fn shifted(bits: vec4<u32>) -> vec4<u32> {
  let pairs = (bits | (bits << vec4<u32>(8u))) & vec4<u32>(0x00FF00FFu);
  let codes = ((pairs | (pairs << vec4<u32>(4u))) & vec4<u32>(0x0F0F0F0Fu)) + vec4<u32>(0x01010101u);
  return codes - ((codes >> vec4<u32>(4u)) & vec4<u32>(0x01010101u));
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (outside(id)) {
    return;
  }
  let words = raw_vec4(id.y * params.row_bytes + id.x * 16u);
  let low = words & vec4<u32>(0xFFFFu);
  let high = words >> vec4<u32>(16u);
  data[target_unit(id.y, id.x)] = nibbles(
    shifted(vec4<u32>(low.x, high.x, low.y, high.y)), shifted(vec4<u32>(low.z, high.z, low.w, high.w)),
  );
}

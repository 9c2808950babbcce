// import_mlc_q3: MLC's 3 bits (ten columns a word, forty a group; w = d (q - 3)) -> weight q3
// binding 2 data read_write array<vec4<u32>> [tiles of 16 rows][COLS / 32][16]
// grid    COLS / 2048, rows of the piece
// uses    import_mlc import_codes
// why     A unit of 32 columns has parts of at most two groups. The fourth bit tells which of its two scales a column has.

@group(0) @binding(2) var<storage, read_write> data: array<vec4<u32>>;

// The integers of four columns, one a byte.
fn codes(row: u32, unit: u32, quad: u32) -> u32 {
  var word = 0u;
  for (var i = 0u; i < 4u; i++) {
    let col = 32u * unit + 4u * quad + i;
    let bits = raw_u32(row + 4u * (col / 10u)) >> (3u * (col % 10u));
    let second = select(0u, 8u, col / 40u != (32u * unit) / 40u);
    word |= ((bits & 7u) | second) << (8u * i);
  }
  return word;
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (outside(id)) {
    return;
  }
  let row = id.y * params.row_bytes;
  let u = id.x;
  data[target_unit(id.y, u)] = nibbles(
    vec4<u32>(codes(row, u, 0u), codes(row, u, 1u), codes(row, u, 2u), codes(row, u, 3u)),
    vec4<u32>(codes(row, u, 4u), codes(row, u, 5u), codes(row, u, 6u), codes(row, u, 7u)),
  );
}

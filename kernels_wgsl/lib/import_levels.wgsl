// import_levels: 16 bytes of nibbles that number the levels of a table -> weight q8_0
// binding 2 data read_write array<vec4<u32>> [tiles of 16 rows][COLS / 32][2][16]
// uses    import_k import_scale
// why     Levels are integers of 8 bits: what they are times is kept as a scale, so nothing is lost, at 8.5 bits a weight.

@group(0) @binding(2) var<storage, read_write> data: array<vec4<u32>>;

// The levels of the four integers of `word`, one a byte, from a table of 16 bytes.
fn levels(word: u32, table: array<u32, 4>) -> u32 {
  var made = 0u;
  for (var i = 0u; i < 4u; i++) {
    let n = (word >> (8u * i)) & 15u;
    let four = select(select(table[0], table[1], n >= 4u), select(table[2], table[3], n >= 12u), n >= 8u);
    made |= ((four >> (8u * (n % 4u))) & 0xFFu) << (8u * i);
  }
  return made;
}

// Four bytes from any place.
fn raw_word(at: u32) -> u32 {
  return raw_u8(at) | (raw_u8(at + 1u) << 8u) | (raw_u8(at + 2u) << 16u) | (raw_u8(at + 3u) << 24u);
}

// Unit i of the weight, of 16 bytes of nibbles and a scale in f16.
fn put_levels(i: u32, at: u32, half: u32, table: array<u32, 4>) {
  let to = (i / 16u) * 32u + i % 16u;
  let q = vec4<u32>(raw_word(at), raw_word(at + 4u), raw_word(at + 8u), raw_word(at + 12u));
  let high = q >> vec4<u32>(4u);
  put_scale(i / 2u, i, half);
  data[to] = vec4<u32>(levels(q.x, table), levels(q.y, table), levels(q.z, table), levels(q.w, table));
  data[to + 16u] = vec4<u32>(levels(high.x, table), levels(high.y, table), levels(high.z, table), levels(high.w, table));
}

// The levels of IQ4_NL and IQ4_XS: nearer to each other where weights are many.
const NON_LINEAR = array<u32, 4>(0xBFAD9881u, 0xF6EADDCFu, 0x26190D01u, 0x71594535u);
// Twice the numbers of a float of 4 bits, two of them for the exponent.
const E2M1 = array<u32, 4>(0x03020100u, 0x0C080604u, 0xFDFEFF00u, 0xF4F8FAFCu);

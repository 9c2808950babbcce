// import: where the rows of a tensor's piece come from and go to
// binding 0 raw    read array<u32> the piece's bytes
// binding 1 params read Params     see below

struct Params {
  row: u32,        // the piece's first row within the tensor
  rows: u32,       // rows of the piece
  row_bytes: u32,  // bytes of a row in the file
  cols: u32,
  first: u32,      // the tensor's first row within the weight
  tile_step: u32,  // rows from tile to tile: 16, or 32 where gate and up tiles alternate
  head_dim: u32,   // not 0: rotary pairs lie in adjacent rows and are moved half a head apart
  errors: u32,     // where the tensor's errors begin, if it is quantised
}

@group(0) @binding(0) var<storage, read> raw: array<u32>;
@group(0) @binding(1) var<storage, read> params: Params;

// The weight's row for row `r` of the piece.
fn target_row(r: u32) -> u32 {
  var row = params.row + r;
  if (params.head_dim != 0u) {
    let i = row % params.head_dim;
    row = row - i + (i % 2u) * (params.head_dim / 2u) + i / 2u;
  }
  return params.first + (row / 16u) * params.tile_step + row % 16u;
}

// Index of a unit of 32 columns in the order that the weight libraries read.
fn target_unit(r: u32, unit: u32) -> u32 {
  let row = target_row(r);
  return ((row / 16u) * ((params.cols + 31u) / 32u) + unit) * 16u + row % 16u;
}

fn raw_u16(at: u32) -> u32 {
  return (raw[at / 4u] >> (8u * (at & 2u))) & 0xFFFFu;
}

// Blocks of 18 and 34 bytes begin on half words.
fn raw_u32(at: u32) -> u32 {
  return raw_u16(at) | (raw_u16(at + 2u) << 16u);
}

fn raw_vec4(at: u32) -> vec4<u32> {
  return vec4<u32>(raw_u32(at), raw_u32(at + 4u), raw_u32(at + 8u), raw_u32(at + 12u));
}

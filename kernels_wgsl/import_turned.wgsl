// import_turned: rows of F32, F16 or BF16 that are a weight's columns -> weight f32, f16 or bf16
// binding 2 data read_write array<u32> [tiles of 16 rows][UNITS][8][16][QUAD_WORDS]
// grid    columns in the file / 64, rows of the piece / 2
// uses    import
// why     GPT-2 keeps its weights as [in, out]. Two columns of the weight a thread: in halves they share a word.

override QUAD_WORDS: u32;  // words of four values: 4 in f32, 2 in f16 and bf16
override UNITS: u32;       // of 32 columns of the weight

@group(0) @binding(2) var<storage, read_write> data: array<u32>;

fn half_at(row: u32, n: u32) -> u32 {
  let at = row * params.cols + n;
  return (raw[at / 2u] >> (16u * (at % 2u))) & 0xFFFFu;
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let n = id.x;
  let row = 2u * id.y;
  if (n >= params.cols || row >= params.rows) {
    return;
  }
  let k = params.row + row;
  let i = ((n / 16u) * UNITS + k / 32u) * 16u + n % 16u;
  let to = ((i / 16u) * 128u + (k % 32u) / 4u * 16u + i % 16u) * QUAD_WORDS;
  if (QUAD_WORDS == 4u) {
    data[to + k % 4u] = raw[row * params.cols + n];
    data[to + k % 4u + 1u] = raw[(row + 1u) * params.cols + n];
  } else {
    data[to + k % 4u / 2u] = half_at(row, n) | (half_at(row + 1u, n) << 16u);
  }
}

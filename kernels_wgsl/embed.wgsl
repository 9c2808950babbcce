// embed: y[r] = SCALE W[token of row r], where that row lies in [FIRST, FIRST + ROWS); y[r] + W[its position] where POSITIONS
// binding 2 step read       Step             one record a row
// binding 3 y    read_write array<vec4<f32>> [rows][COLS / 4]
// grid    COLS / 512, rows
// uses    step weight no_input
// why     Reads the weight as the LM head does, so tied embeddings need no second copy.

override COLS: u32;
override FIRST: u32 = 0;  // the first row of this part of the table
override ROWS: u32;
override SCALE: f32 = 1.0;
override POSITIONS: bool = false;  // learned positions are added to what is there

@group(0) @binding(2) var<storage, read> step: Step;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;

fn put(at: u32, value: vec4<f32>) {
  y[at] = SCALE * value + select(vec4<f32>(), y[at], POSITIONS);
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let units = (COLS + 31u) / 32u;
  let unit = id.x / 4u;
  let p = id.x % 4u;
  let row = select(step.row[id.y].token, step.row[id.y].position, POSITIONS) - FIRST;  // wraps to a large number below FIRST
  if (unit >= units || row >= ROWS) {
    return;
  }
  let pair = weight_quads(((row / 16u) * units + unit) * 16u + row % 16u, p);
  let quad = unit * 8u + p;
  if (quad < COLS / 4u) {
    put(id.y * (COLS / 4u) + quad, pair[0]);
  }
  if (quad + 4u < COLS / 4u) {
    put(id.y * (COLS / 4u) + quad + 4u, pair[1]);
  }
}

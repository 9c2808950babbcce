// argmax_tile: the largest logit of each tile of 1024, and its token
// binding 0 logits     read       array<f32>       [rows][COLS]
// binding 1 candidates read_write array<vec2<u32>> [rows][TILES] bits of the logit, token
// grid    COLS / 1024, rows
// uses    best
// why     Two small dispatches instead of one workgroup that walks 600 KB alone.

override COLS: u32;
override TILES: u32;

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read_write> candidates: array<vec2<u32>>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  var mine = Candidate(-3.4e38, 0xFFFFFFFFu);
  for (var i = 0u; i < 4u; i++) {
    let n = group.x * 1024u + i * 256u + t;
    if (n < COLS) {
      mine = better(mine, Candidate(logits[group.y * COLS + n], n));
    }
  }
  let winner = best(mine, t);
  if (t == 0u) {
    candidates[group.y * TILES + group.x] = vec2<u32>(bitcast<u32>(winner.value), winner.token);
  }
}

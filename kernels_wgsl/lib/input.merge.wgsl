// input merge: the output of attention, merged from its splits while it is loaded; x holds the splits' sums
// binding 3 x     read array<vec4<f32>> [rows][HEADS][SPLITS][HEAD_QUADS]
// binding 6 stats read array<vec2<f32>> [rows][HEADS][SPLITS] maximum, sum
// binding 7 step  read Step             one record a row
// uses    step
// why     Saves the dispatch of attention_merge where the splits are few: every workgroup reads all of them.

override HEAD_QUADS: u32;  // HEAD_DIM / 4
override SPLITS: u32;      // splits that attention has room for
override SPLIT: u32;       // positions in a split
override SHARES: u32;      // heads times SPLITS

@group(0) @binding(3) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> stats: array<vec2<f32>>;
@group(0) @binding(7) var<storage, read> step: Step;

var<private> input_squares: f32;  // stays 0

// What each split counts for in its head: exp(max_s - max) / sum_s exp(max_s - max) sum_s.
var<workgroup> shares: array<f32, SHARES>;

// Holds a barrier: call it in uniform control flow.
fn input_prepare(row: u32, t: u32) {
  let splits = step.row[row].position / SPLIT + 1u;
  let heads = COLS / 4u / HEAD_QUADS;
  for (var i = t; i < heads * splits; i += WG) {
    let first = (row * heads + i / splits) * SPLITS;
    var most = -3.0e38;
    for (var s = 0u; s < splits; s++) {
      most = max(most, stats[first + s].x);
    }
    var sum = 0.0;
    for (var s = 0u; s < splits; s++) {
      let stat = stats[first + s];
      sum += exp(stat.x - most) * stat.y;
    }
    shares[i] = exp(stats[first + i % splits].x - most) / sum;
  }
  workgroupBarrier();
}

fn input_at(row: u32, quad: u32) -> vec4<f32> {
  let splits = step.row[row].position / SPLIT + 1u;
  let head = quad / HEAD_QUADS;
  let first = ((row * (COLS / 4u / HEAD_QUADS) + head) * SPLITS) * HEAD_QUADS + quad % HEAD_QUADS;
  var total = vec4<f32>();
  for (var s = 0u; s < splits; s++) {
    total += shares[head * splits + s] * x[first + s * HEAD_QUADS];
  }
  return total;
}

fn input_scale(squares: f32) -> f32 {
  return 1.0;
}

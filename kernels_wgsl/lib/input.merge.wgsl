// input merge: the output of attention, merged from its splits while it is loaded; x holds the splits' sums
// binding 3 x     read array<vec4<f32>> [rows][HEADS][SPLITS][HEAD_QUADS]
// binding 6 stats read array<vec2<f32>> [rows][HEADS][SPLITS] maximum, sum
// binding 7 step  read Step             one record a row
// uses    step
// why     Saves the dispatch of attention_merge where the splits are few: every workgroup reads all of them.

override HEAD_QUADS: u32;  // HEAD_DIM / 4
override SPLITS: u32;      // splits that attention has room for
override SPLIT: u32;       // positions in a split

@group(0) @binding(3) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> stats: array<vec2<f32>>;
@group(0) @binding(7) var<storage, read> step: Step;

var<private> input_squares: f32;  // stays 0

// Four splits at a time: their loads are under way together. Beyond the last they count for nothing.
fn input_at(row: u32, quad: u32) -> vec4<f32> {
  let first = (row * (COLS / 4u / HEAD_QUADS) + quad / HEAD_QUADS) * SPLITS;
  let last = first + step.row[row].position / SPLIT;
  var most = -3.0e38;
  var sum = 0.0;
  var total = vec4<f32>();
  for (var s = first; s <= last; s += 4u) {
    let at = min(vec4<u32>(s, s + 1u, s + 2u, s + 3u), vec4<u32>(last));
    let s0 = stats[at.x];
    let s1 = stats[at.y];
    let s2 = stats[at.z];
    let s3 = stats[at.w];
    let x0 = x[at.x * HEAD_QUADS + quad % HEAD_QUADS];
    let x1 = x[at.y * HEAD_QUADS + quad % HEAD_QUADS];
    let x2 = x[at.z * HEAD_QUADS + quad % HEAD_QUADS];
    let x3 = x[at.w * HEAD_QUADS + quad % HEAD_QUADS];
    let larger = max(most, max(max(s0.x, s1.x), max(s2.x, s3.x)));
    let old = exp(most - larger);
    let live = vec4<u32>(s, s + 1u, s + 2u, s + 3u) <= vec4<u32>(last);
    let share = select(vec4<f32>(), exp(vec4<f32>(s0.x, s1.x, s2.x, s3.x) - larger), live);
    sum = sum * old + dot(share, vec4<f32>(s0.y, s1.y, s2.y, s3.y));
    total = total * old + share.x * x0 + share.y * x1 + share.z * x2 + share.w * x3;
    most = larger;
  }
  return total / sum;
}

fn input_scale(squares: f32) -> f32 {
  return 1.0;
}

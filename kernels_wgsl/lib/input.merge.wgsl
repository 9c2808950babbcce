// input merge: the output of attention, merged from its splits while it is loaded; x holds the splits' sums
// binding 3 x     read array<vec4<f32>> [rows][HEADS][SPLITS][HEAD_QUADS]
// binding 6 stats read array<vec2<f32>> [rows][HEADS][SPLITS] maximum, sum
// binding 7 step  read Step             one record a row
// uses    step
// why     Saves the dispatch of attention_merge where the splits are few: every workgroup reads all of them.

override HEAD_QUADS: u32;  // HEAD_DIM / 4
override SPLITS: u32;      // splits that the context holds
override SPLIT: u32;       // positions in a split

@group(0) @binding(3) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> stats: array<vec2<f32>>;
@group(0) @binding(7) var<storage, read> step: Step;

var<private> input_squares: f32;  // stays 0

fn input_at(row: u32, quad: u32) -> vec4<f32> {
  let head = row * (COLS / 4u / HEAD_QUADS) + quad / HEAD_QUADS;
  let splits = step.row[row].position / SPLIT + 1u;
  var most = -3.0e38;
  var sum = 0.0;
  var total = vec4<f32>();
  for (var s = 0u; s < splits; s++) {
    let stat = stats[head * SPLITS + s];
    let value = x[(head * SPLITS + s) * HEAD_QUADS + quad % HEAD_QUADS];
    let larger = max(most, stat.x);
    let old = exp(most - larger);
    let share = exp(stat.x - larger);
    sum = sum * old + share * stat.y;
    total = total * old + share * value;
    most = larger;
  }
  return total / sum;
}

fn input_scale(squares: f32) -> f32 {
  return 1.0;
}

// attention_merge: y[r, h] = sum_s exp(max_s - max) part[r, h, s] / sum_s exp(max_s - max) sum_s
// binding 0 step  read       Step             one record a row
// binding 1 part  read       array<vec4<f32>> [rows][HEADS][SPLITS][HEAD_DIM / 4]
// binding 2 stats read       array<vec2<f32>> [rows][HEADS][SPLITS] maximum, sum
// binding 3 y     read_write array<vec4<f32>> [rows][HEADS][HEAD_DIM / 4]
// grid    HEADS, rows
// uses    step reduce
// why     Splits run at the same time and cannot see each other's maximum.

override HEADS: u32;
override HEAD_DIM: u32;
override SPLITS: u32;
override SPLIT: u32;  // positions in a split

@group(0) @binding(0) var<storage, read> step: Step;
@group(0) @binding(1) var<storage, read> part: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> stats: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;

alias Reduced = f32;

const WG = 128u;

var<workgroup> sums: array<f32, 128>;
var<workgroup> totals: array<vec4<f32>, 128>;

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3<u32>, lane: Lane) {
  let t = lane.t;
  let quads = HEAD_DIM / 4u;
  let head = group.y * HEADS + group.x;
  let splits = step.row[group.y].position / SPLIT + 1u;
  var largest = -3.0e38;
  for (var s = t; s < splits; s += WG) {
    largest = max(largest, stats[head * SPLITS + s].x);
  }
  largest = reduce_max(largest, lane);

  // Threads that share a quad take every (WG / quads)th split.
  let lanes = WG / quads;
  var total = vec4<f32>();
  var sum = 0.0;
  for (var s = t / quads; t < lanes * quads && s < splits; s += lanes) {
    let stat = stats[head * SPLITS + s];
    let share = exp(stat.x - largest);
    sum += share * stat.y;
    total += share * part[(head * SPLITS + s) * quads + t % quads];
  }
  totals[t] = total;
  sums[t] = sum;
  workgroupBarrier();
  if (t < quads) {
    total = vec4<f32>();
    sum = 0.0;
    for (var at = t; at < lanes * quads; at += quads) {
      total += totals[at];
      sum += sums[at];
    }
    y[head * quads + t] = total / sum;
  }
}

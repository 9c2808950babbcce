// attention_merge: y[r, h] = sum_s exp(max_s - max) part[r, h, s] / sum_s exp(max_s - max) sum_s
// binding 0 step  read       Step             one record a row
// binding 1 part  read       array<vec4<f32>> [rows][HEADS][SPLITS][HEAD_DIM / 4]
// binding 2 stats read       array<vec2<f32>> [rows][HEADS][SPLITS] maximum, sum
// binding 3 y     read_write array<vec4<f32>> [rows][HEADS][HEAD_DIM / 4]
// grid    HEADS, HEAD_DIM / 32, rows
// uses    step reduce
// why     Splits run at the same time and cannot see each other's maximum. Few numbers a workgroup: the time is that of waiting for memory.

override HEADS: u32;
override HEAD_DIM: u32;
override SPLITS: u32;  // at most 128
override SPLIT: u32;   // positions in a block of a split

@group(0) @binding(0) var<storage, read> step: Step;
@group(0) @binding(1) var<storage, read> part: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> stats: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;

alias Reduced = f32;

const WG = 128u;

var<workgroup> shares: array<f32, 128>;
var<workgroup> totals: array<vec4<f32>, 128>;  // [16][8 quads]

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3<u32>, lane: Lane) {
  let t = lane.t;
  let head = group.z * HEADS + group.x;
  let splits = min(SPLITS, step.row[group.z].position / SPLIT + 1u);
  var stat = vec2<f32>(-3.0e38, 0.0);
  if (t < splits) {
    stat = stats[head * SPLITS + t];
  }
  let share = exp(stat.x - reduce_max(stat.x, lane));
  shares[t] = select(0.0, share, t < splits);
  let sum = reduce_add(share * stat.y, lane);

  // Eight threads take a split's 8 quads, so 16 splits at a time; four loads are under way together.
  let quads = HEAD_DIM / 4u;
  let quad = group.y * 8u + t % 8u;
  let from_split = head * SPLITS * quads + min(quad, quads - 1u);
  let last = splits - 1u;
  var total = vec4<f32>();
  for (var s = t / 8u; s < splits; s += 64u) {
    let p0 = part[from_split + s * quads];
    let p1 = part[from_split + min(s + 16u, last) * quads];
    let p2 = part[from_split + min(s + 32u, last) * quads];
    let p3 = part[from_split + min(s + 48u, last) * quads];
    total += shares[s] * p0 + shares[s + 16u] * p1 + shares[s + 32u] * p2 + shares[s + 48u] * p3;
  }
  totals[t] = total;
  workgroupBarrier();
  if (t < 8u && quad < quads) {
    for (var at = t + 8u; at < WG; at += 8u) {
      total += totals[at];
    }
    y[head * quads + quad] = total / sum;
  }
}

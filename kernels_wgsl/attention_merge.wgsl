// attention_merge: y[r, h] = sum_s exp(max_s - max) part[r, h, s] / sum_s exp(max_s - max) sum_s
// binding 0 step  read       Step             one record a row
// binding 1 part  read       array<vec4<f32>> [rows][HEADS][SPLITS][HEAD_DIM / 4]
// binding 2 stats read       array<vec2<f32>> [rows][HEADS][SPLITS] maximum, sum
// binding 3 y     read_write array<vec4<f32>> [rows][HEADS][HEAD_DIM / 4]
// grid    HEADS, rows
// uses    step
// why     Splits run at the same time and cannot see each other's maximum.

override HEADS: u32;
override HEAD_DIM: u32;
override SPLITS: u32;
override SPLIT: u32;  // positions in a split

@group(0) @binding(0) var<storage, read> step: Step;
@group(0) @binding(1) var<storage, read> part: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> stats: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  if (t >= HEAD_DIM / 4u) {
    return;
  }
  let head = group.y * HEADS + group.x;
  let splits = step.row[group.y].position / SPLIT + 1u;
  var most = -3.0e38;
  for (var s = 0u; s < splits; s++) {
    most = max(most, stats[head * SPLITS + s].x);
  }
  var total = vec4<f32>();
  var sum = 0.0;
  for (var s = 0u; s < splits; s++) {
    let stat = stats[head * SPLITS + s];
    let share = exp(stat.x - most);
    sum += share * stat.y;
    total += share * part[(head * SPLITS + s) * (HEAD_DIM / 4u) + t];
  }
  y[head * (HEAD_DIM / 4u) + t] = total / sum;
}

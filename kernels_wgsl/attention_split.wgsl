// attention_split: softmax(q . K SCALE) V over one split of WG positions, for GROUP heads that share K and V
// binding 0 step    read       Step             one record a row
// binding 1 qkv     read       array<vec4<f32>> [rows][HEADS + 2 KV_HEADS][HEAD_DIM / 4]
// binding 3 k_cache read       array<KvQuad>    [pages][KV_HEADS][32][HEAD_DIM / 4]
// binding 4 v_cache read       array<KvQuad>    [pages][KV_HEADS][32][HEAD_DIM / 4]
// binding 5 part    read_write array<vec4<f32>> [rows][HEADS][SPLITS][HEAD_DIM / 4] not normalised
// binding 6 stats   read_write array<vec2<f32>> [rows][HEADS][SPLITS] maximum, sum
// grid    HEADS / GROUP, ceil(length / WG), rows
// uses    step pages kv
// why     The cost follows the length; K and V are read once for all heads of a group.

override HEADS: u32;
override GROUP: u32;        // heads a workgroup, at most 8, all of one KV head
override GROUP_QUADS: u32;  // GROUP HEAD_DIM / 4
override SPLITS: u32;       // splits that the context holds
override SCALE: f32;
override WG: u32 = 128;     // threads, and positions in a split
override SCORES: u32;       // GROUP WG

@group(0) @binding(0) var<storage, read> step: Step;
@group(0) @binding(1) var<storage, read> qkv: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> k_cache: array<KvQuad>;
@group(0) @binding(4) var<storage, read> v_cache: array<KvQuad>;
@group(0) @binding(5) var<storage, read_write> part: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> stats: array<vec2<f32>>;

var<workgroup> query: array<vec4<f32>, GROUP_QUADS>;
var<workgroup> score: array<f32, SCORES>;     // [GROUP][WG]
var<workgroup> lane_stat: array<f32, WG>;     // [8 heads][WG / 8 lanes]
var<workgroup> lane_sum: array<vec4<f32>, WG>;

fn score_position(row: Row, kv_head: u32, position: u32, t: u32) {
  let at = kv_index(row.sequence, position, kv_head);
  var sum: array<f32, 8>;
  for (var quad = 0u; quad < HEAD_DIM / 4u; quad++) {
    let k = kv_unpack(k_cache[at + quad]);
    for (var g = 0u; g < GROUP; g++) {
      sum[g] += dot(query[g * (HEAD_DIM / 4u) + quad], k);
    }
  }
  for (var g = 0u; g < GROUP; g++) {
    score[g * WG + t] = sum[g] * SCALE;
  }
}

// Sum over the split's positions first + lane, first + lane + lanes, ...
fn weighted_values(row: Row, kv_head: u32, first: u32, count: u32, out: u32, lane: u32, lanes: u32) -> vec4<f32> {
  let g = out / (HEAD_DIM / 4u);
  let quad = out % (HEAD_DIM / 4u);
  var sum = vec4<f32>();
  for (var p = lane; p < count; p += lanes) {
    sum += score[g * WG + p] * kv_unpack(v_cache[kv_index(row.sequence, first + p, kv_head) + quad]);
  }
  return sum;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let row = step.row[group.z];
  let head = group.x * GROUP;
  let kv_head = head / (HEADS / KV_HEADS);
  let first = group.y * WG;
  let count = min(WG, row.position + 1u - first);
  for (var i = t; i < GROUP_QUADS; i += WG) {
    query[i] = qkv[(group.z * (HEADS + 2u * KV_HEADS) + head) * (HEAD_DIM / 4u) + i];
  }
  workgroupBarrier();
  if (t < count) {
    score_position(row, kv_head, first + t, t);
  }
  workgroupBarrier();

  // WG / 8 threads a head: its maximum, then the exponentials and their sum.
  let lanes = WG / 8u;
  let g = t / lanes;
  var most = -3.0e38;
  if (g < GROUP) {
    for (var p = t % lanes; p < count; p += lanes) {
      most = max(most, score[g * WG + p]);
    }
  }
  lane_stat[t] = most;
  workgroupBarrier();
  for (var lane = 0u; lane < lanes; lane++) {
    most = max(most, lane_stat[g * lanes + lane]);
  }
  workgroupBarrier();
  var sum = 0.0;
  if (g < GROUP) {
    for (var p = t % lanes; p < count; p += lanes) {
      let e = exp(score[g * WG + p] - most);
      score[g * WG + p] = e;
      sum += e;
    }
  }
  lane_stat[t] = sum;
  workgroupBarrier();
  let stat = (group.z * HEADS + head) * SPLITS + group.y;
  if (g < GROUP && t % lanes == 0u) {
    sum = 0.0;
    for (var lane = 0u; lane < lanes; lane++) {
      sum += lane_stat[g * lanes + lane];
    }
    stats[stat + g * SPLITS] = vec2<f32>(most, sum);
  }

  // Few outputs: several threads share one, each with its own positions. Many: several a thread.
  let threads = max(1u, WG / GROUP_QUADS);
  for (var base = 0u; base < GROUP_QUADS; base += WG) {
    let out = base + t % min(WG, GROUP_QUADS);
    let lane = t / min(WG, GROUP_QUADS);
    if (out < GROUP_QUADS && lane < threads) {
      lane_sum[t] = weighted_values(row, kv_head, first, count, out, lane, threads);
    }
    workgroupBarrier();
    if (out < GROUP_QUADS && lane == 0u) {
      var total = vec4<f32>();
      for (var i = 0u; i < threads; i++) {
        total += lane_sum[t + i * GROUP_QUADS];
      }
      part[(stat + (out / (HEAD_DIM / 4u)) * SPLITS) * (HEAD_DIM / 4u) + out % (HEAD_DIM / 4u)] = total;
    }
    workgroupBarrier();
  }
}

// attention_split: stores the row's k and v, then softmax(q . K SCALE) V over one split of 128 positions, for GROUP heads
// binding 0 step    read       Step             one record a row
// binding 3 qkv     read       array<vec4<f32>> [rows][HEADS + 2 KV_HEADS][HEAD_DIM / 4] not rotated
// binding 4 k_cache read_write array<KvQuad>    [pages][KV_HEADS][32][HEAD_DIM / 4]
// binding 5 v_cache read_write array<KvQuad>    [pages][KV_HEADS][32][HEAD_DIM / 4]
// binding 6 part    read_write array<vec4<f32>> [rows][HEADS][SPLITS][HEAD_DIM / 4] not normalised
// binding 7 stats   read_write array<vec2<f32>> [rows][HEADS][SPLITS] maximum, sum
// grid    HEADS / GROUP, ceil(length / 128), rows
// uses    step pages kv rope outer reduce
// why     The cost follows the length; K and V are read once for all heads of a group. Only the last split sees the row's own k and v, so its workgroup can store them itself: no dispatch of its own.

override HEADS: u32;
override GROUP: u32;    // heads a workgroup, at most 8, all of one KV head
override SPLITS: u32;   // splits that the context holds
override SCALE: f32;
override SCRATCH: u32;  // max(512, 2 HEAD_DIM)

@group(0) @binding(0) var<storage, read> step: Step;
@group(0) @binding(3) var<storage, read> qkv: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> k_cache: array<KvQuad>;
@group(0) @binding(5) var<storage, read_write> v_cache: array<KvQuad>;
@group(0) @binding(6) var<storage, read_write> part: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> stats: array<vec2<f32>>;

alias Reduced = vec4<f32>;

const WG = 128u;  // threads, and positions in a split

var<workgroup> scratch: array<vec4<f32>, SCRATCH>;  // queries [8][HEAD_DIM / 4], then sums [4][WG]
var<workgroup> low_score: array<vec4<f32>, 128>;    // heads 0-3 of each position
var<workgroup> high_score: array<vec4<f32>, 128>;   // heads 4-7
var<workgroup> page_at: array<u32, 4>;              // where this head's part of the split's pages begins

// Rotated queries of GROUP heads, and zeros up to 8.
fn load_queries(r: u32, position: u32, head: u32, t: u32) {
  let half = HEAD_DIM / 8u;
  for (var i = t; i < 8u * half; i += WG) {
    let to = (i / half) * 2u * half + i % half;
    var turned = array<vec4<f32>, 2>();
    if (i / half < GROUP) {
      let at = (r * (HEADS + 2u * KV_HEADS) + head) * 2u * half + to;
      turned = rotate(position, i % half, qkv[at], qkv[at + half]);
    }
    scratch[to] = turned[0];
    scratch[to + half] = turned[1];
  }
}

// The row's own k, rotated, and v.
fn store_own(r: u32, row: Row, kv_head: u32, t: u32) {
  let half = HEAD_DIM / 8u;
  let to = kv_index(row.sequence, row.position, kv_head) + t;
  let k = (r * (HEADS + 2u * KV_HEADS) + HEADS + kv_head) * 2u * half + t;
  let v = k + KV_HEADS * 2u * half;
  if (t < half) {
    let turned = rotate(row.position, t, qkv[k], qkv[k + half]);
    k_cache[to] = kv_pack(turned[0]);
    k_cache[to + half] = kv_pack(turned[1]);
    v_cache[to] = kv_pack(qkv[v]);
    v_cache[to + half] = kv_pack(qkv[v + half]);
  }
}

fn four_dots(head: u32, quad: u32, k: vec4<f32>) -> vec4<f32> {
  let at = head * (HEAD_DIM / 4u) + quad;
  return vec4<f32>(
    dot(scratch[at], k),
    dot(scratch[at + HEAD_DIM / 4u], k),
    dot(scratch[at + 2u * (HEAD_DIM / 4u)], k),
    dot(scratch[at + 3u * (HEAD_DIM / 4u)], k),
  );
}

// Index of the first quad of position p of the split.
fn split_index(p: u32) -> u32 {
  return page_at[p / 32u] + (p % 32u) * (HEAD_DIM / 4u);
}

fn score_position(t: u32) {
  let at = split_index(t);
  var low = vec4<f32>();
  var high = vec4<f32>();
  for (var quad = 0u; quad < HEAD_DIM / 4u; quad += 2u) {
    let k0 = kv_unpack(k_cache[at + quad]);
    let k1 = kv_unpack(k_cache[at + quad + 1u]);
    low += four_dots(0u, quad, k0) + four_dots(0u, quad + 1u, k1);
    if (GROUP > 4u) {
      high += four_dots(4u, quad, k0) + four_dots(4u, quad + 1u, k1);
    }
  }
  low_score[t] = low * SCALE;
  high_score[t] = high * SCALE;
}

// Weights of position p for four heads each; zero from the count on.
fn low_at(p: u32) -> vec4<f32> {
  return select(vec4<f32>(), low_score[p % WG], p < WG);
}

fn high_at(p: u32) -> vec4<f32> {
  return select(vec4<f32>(), high_score[p % WG], p < WG);
}

// Adds up the threads that share a quad, and writes heads first .. first + 3.
fn write_part(t: u32, first: u32, stat: u32, sum: mat4x4<f32>) {
  let quads = HEAD_DIM / 4u;
  scratch[t] = sum[0];
  scratch[t + WG] = sum[1];
  scratch[t + 2u * WG] = sum[2];
  scratch[t + 3u * WG] = sum[3];
  workgroupBarrier();
  for (var i = t; i < 4u * quads && first + i / quads < GROUP; i += WG) {
    let head = i / quads;
    var total = vec4<f32>();
    for (var at = i % quads; at < WG; at += quads) {
      total += scratch[head * WG + at];
    }
    part[(stat + (first + head) * SPLITS) * quads + i % quads] = total;
  }
  workgroupBarrier();
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3<u32>, lane: Lane) {
  let t = lane.t;
  let quads = HEAD_DIM / 4u;
  let row = step.row[group.z];
  let head = group.x * GROUP;
  let kv_head = head / (HEADS / KV_HEADS);
  let first = group.y * WG;
  // A step that waits for the host may be longer than its row: what lies beyond is not merged.
  let count = min(WG, max(row.position + 1u, first) - first);
  load_queries(group.z, row.position, head, t);
  if (first + count > row.position) {
    store_own(group.z, row, kv_head, t);
  }
  if (t < 4u) {
    page_at[t] = kv_index(row.sequence, first + 32u * t, kv_head);
  }
  low_score[t] = vec4<f32>(-3.0e38);
  high_score[t] = vec4<f32>(-3.0e38);
  storageBarrier();
  workgroupBarrier();
  if (t < count) {
    score_position(t);
  }
  let low_most = reduce_max(low_score[t], lane);
  low_score[t] = select(vec4<f32>(), exp(low_score[t] - low_most), t < count);
  let low_sum = reduce_add(low_score[t], lane);
  var high_most = vec4<f32>();
  var high_sum = vec4<f32>();
  if (GROUP > 4u) {
    high_most = reduce_max(high_score[t], lane);
    high_score[t] = select(vec4<f32>(), exp(high_score[t] - high_most), t < count);
    high_sum = reduce_add(high_score[t], lane);
  }
  let stat = (group.z * HEADS + head) * SPLITS + group.y;
  if (t < GROUP) {
    let most = select(high_most[t % 4u], low_most[t % 4u], t < 4u);
    let sum = select(high_sum[t % 4u], low_sum[t % 4u], t < 4u);
    stats[stat + t * SPLITS] = vec2<f32>(most, sum);
  }

  // A thread sums one quad of V for all heads, over every (WG / quads)th position, four at a time:
  // their loads are under way together.
  let lanes = WG / quads;
  let quad = t % quads;
  let last = count - 1u;
  var low = mat4x4<f32>();
  var high = mat4x4<f32>();
  for (var p = t / quads; p < count && t < lanes * quads; p += 4u * lanes) {
    let p1 = p + lanes;
    let p2 = p1 + lanes;
    let p3 = p2 + lanes;
    let v0 = kv_unpack(v_cache[split_index(p) + quad]);
    let v1 = kv_unpack(v_cache[split_index(min(p1, last)) + quad]);
    let v2 = kv_unpack(v_cache[split_index(min(p2, last)) + quad]);
    let v3 = kv_unpack(v_cache[split_index(min(p3, last)) + quad]);
    low += outer(low_at(p), v0) + outer(low_at(p1), v1) + outer(low_at(p2), v2) + outer(low_at(p3), v3);
    if (GROUP > 4u) {
      high += outer(high_at(p), v0) + outer(high_at(p1), v1) + outer(high_at(p2), v2) + outer(high_at(p3), v3);
    }
  }
  write_part(t, 0u, stat, low);
  if (GROUP > 4u) {
    write_part(t, 4u, stat, high);
  }
}

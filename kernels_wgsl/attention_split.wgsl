// attention_split: stores the row's k and v, then softmax(q . K SCALE) V over every SPLITS'th block of 128 positions that the row sees, for GROUP heads
// binding 0 step    read       Step             one record a row
// binding 3 qkv     read       array<vec4<f32>> [rows][HEADS + 2 KV_HEADS][HEAD_DIM / 4] not rotated
// binding 4 k_cache read_write array<KvUnit>    [pages][KV_HEADS][HEAD_DIM / 8 + KV_SCALES][32]
// binding 5 v_cache read_write array<KvUnit>    [pages][KV_HEADS][32][HEAD_DIM / 8 + KV_SCALES] scales behind all units
// binding 6 part    read_write array<vec4<f32>> [rows][HEADS][SPLITS][HEAD_DIM / 4] not normalised
// binding 7 stats   read_write array<vec2<f32>> [rows][HEADS][SPLITS] maximum, sum
// grid    KV_HEADS ceil(HEADS / KV_HEADS / GROUP), at most SPLITS, rows
// uses    step pages kv rope store outer reduce cap window
// why     As many workgroups as fill the GPU, at any length; each corrects its softmax block by block. The split with the row's own position stores its k and v: no dispatch of its own.

override HEADS: u32;
override GROUP: u32;   // heads a workgroup, at most 4, all of one KV head
override SPLITS: u32;
override SCALE: f32;

@group(0) @binding(0) var<storage, read> step: Step;
@group(0) @binding(3) var<storage, read> qkv: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> k_cache: array<KvUnit>;
@group(0) @binding(5) var<storage, read_write> v_cache: array<KvUnit>;
@group(0) @binding(6) var<storage, read_write> part: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> stats: array<vec2<f32>>;

alias Reduced = vec4<f32>;

const WG = 128u;  // threads, and positions in a block

// Queries [HEAD_DIM / 4 up to 16][4 heads], then k and v of the row (see `store`); at the end sums [4][WG].
var<workgroup> scratch: array<vec4<f32>, 512>;
var<workgroup> weights: array<vec4<f32>, 129>;  // of four heads at each position of the block; the last is zero
var<workgroup> page_at: array<u32, 8>;          // where this head's part of the block's pages begins; the same of the next

// Units whose loads are under way together.
struct Eight {
  u0: KvUnit,
  u1: KvUnit,
  u2: KvUnit,
  u3: KvUnit,
  u4: KvUnit,
  u5: KvUnit,
  u6: KvUnit,
  u7: KvUnit,
}

// One unit of the output for four heads, which are the columns.
struct Sums {
  low: mat4x4<f32>,
  high: mat4x4<f32>,
}

// Rotated queries of `heads` heads, and zeros up to four and up to whole eights of units.
fn load_queries(r: u32, position: u32, head: u32, heads: u32, t: u32) {
  let half = HEAD_DIM / 8u;
  for (var i = t; i < 4u * half; i += WG) {
    let h = i / half;
    let pair = i % half;
    var turned = array<vec4<f32>, 2>();
    if (h < heads) {
      let at = (r * (HEADS + 2u * KV_HEADS) + head + h) * 2u * half;
      turned = rotate(position, pair, qkv[at + pair_low(pair)], qkv[at + pair_high(pair)]);
    }
    scratch[4u * pair_low(pair) + h] = turned[0];
    scratch[4u * pair_high(pair) + h] = turned[1];
  }
  for (var i = HEAD_DIM + t; i < (HEAD_DIM + 63u) / 64u * 64u; i += WG) {
    scratch[i] = vec4<f32>();
  }
}

// A unit of K times those of the four queries.
fn unit_dots(unit: u32, packed: KvUnit, scales: KvUnit) -> vec4<f32> {
  let k = kv_unpack(packed);
  let at = 8u * unit;
  let dots = k[0] * mat4x4<f32>(scratch[at], scratch[at + 1u], scratch[at + 2u], scratch[at + 3u])
    + k[1] * mat4x4<f32>(scratch[at + 4u], scratch[at + 5u], scratch[at + 6u], scratch[at + 7u]);
  return dots * kv_scale(scales, kv_quarter(unit));
}

fn key_unit(at: u32, unit: u32) -> KvUnit {
  return k_cache[at + k_at(0u, min(unit, HEAD_DIM / 8u - 1u))];
}

// Scores of the four heads at position p of a page. Units beyond the last meet zeros.
fn score_position(page: u32, p: u32) -> vec4<f32> {
  let at = page + k_at(p, 0u);
  var scales = KvUnit();
  if (KV_SCALES > 0u) {
    scales = k_cache[page + scales_at(p)];
  }
  var score = vec4<f32>();
  for (var u = 0u; u < HEAD_DIM / 8u; u += 8u) {
    let keys = Eight(
      key_unit(at, u), key_unit(at, u + 1u), key_unit(at, u + 2u), key_unit(at, u + 3u),
      key_unit(at, u + 4u), key_unit(at, u + 5u), key_unit(at, u + 6u), key_unit(at, u + 7u),
    );
    score += unit_dots(u, keys.u0, scales) + unit_dots(u + 1u, keys.u1, scales)
      + unit_dots(u + 2u, keys.u2, scales) + unit_dots(u + 3u, keys.u3, scales)
      + unit_dots(u + 4u, keys.u4, scales) + unit_dots(u + 5u, keys.u5, scales)
      + unit_dots(u + 6u, keys.u6, scales) + unit_dots(u + 7u, keys.u7, scales);
  }
  return capped(score * SCALE);
}

fn value_unit(slot: u32, p: u32, unit: u32) -> KvUnit {
  return v_cache[page_at[slot + p / 32u] + v_at(p % 32u, unit)];
}

// A unit of V at positions p, p + lanes and so on; from `last` on always that of `last`.
fn load_values(slot: u32, unit: u32, p: u32, lanes: u32, last: u32) -> Eight {
  return Eight(
    value_unit(slot, min(p, last), unit), value_unit(slot, min(p + lanes, last), unit),
    value_unit(slot, min(p + 2u * lanes, last), unit), value_unit(slot, min(p + 3u * lanes, last), unit),
    value_unit(slot, min(p + 4u * lanes, last), unit), value_unit(slot, min(p + 5u * lanes, last), unit),
    value_unit(slot, min(p + 6u * lanes, last), unit), value_unit(slot, min(p + 7u * lanes, last), unit),
  );
}

fn add_unit(sums: Sums, p: u32, packed: KvUnit) -> Sums {
  let v = kv_unpack(packed);
  let weight = weights[min(p, WG)];
  return Sums(sums.low + outer(weight, v[0]), sums.high + outer(weight, v[1]));
}

fn add_values(before: Sums, p: u32, lanes: u32, values: Eight) -> Sums {
  var sums = add_unit(before, p, values.u0);
  sums = add_unit(sums, p + lanes, values.u1);
  sums = add_unit(sums, p + 2u * lanes, values.u2);
  sums = add_unit(sums, p + 3u * lanes, values.u3);
  sums = add_unit(sums, p + 4u * lanes, values.u4);
  sums = add_unit(sums, p + 5u * lanes, values.u5);
  sums = add_unit(sums, p + 6u * lanes, values.u6);
  return add_unit(sums, p + 7u * lanes, values.u7);
}

fn scaled(m: mat4x4<f32>, factor: vec4<f32>) -> mat4x4<f32> {
  return mat4x4<f32>(m[0] * factor.x, m[1] * factor.y, m[2] * factor.z, m[3] * factor.w);
}

// Adds up the threads that share a unit, and writes two heads of `heads`. sum: low and high of the first, of the second.
fn write_part(t: u32, first: u32, heads: u32, stat: u32, sum: mat4x4<f32>) {
  let units = HEAD_DIM / 8u;
  let quads = 2u * units;
  workgroupBarrier();
  scratch[t] = sum[0];
  scratch[t + WG] = sum[1];
  scratch[t + 2u * WG] = sum[2];
  scratch[t + 3u * WG] = sum[3];
  workgroupBarrier();
  for (var i = t; i < 2u * quads && first + i / quads < heads; i += WG) {
    let quad = i % quads;
    let from_thread = (2u * (i / quads) + quad % 2u) * WG;
    var total = vec4<f32>();
    for (var at = quad / 2u; at < WG / units * units; at += units) {
      total += scratch[from_thread + at];
    }
    part[(stat + (first + i / quads) * SPLITS) * quads + quad] = total;
  }
}

// v[head]: an index that is a variable would keep v in memory.
fn of_head(v: vec4<f32>, head: u32) -> f32 {
  return select(select(v.x, v.y, head == 1u), select(v.z, v.w, head == 3u), head >= 2u);
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3<u32>, lane: Lane) {
  let t = lane.t;
  let row = step.row[group.z];
  let per_kv = HEADS / KV_HEADS;
  let groups = (per_kv + GROUP - 1u) / GROUP;
  let kv_head = group.x / groups;
  let head = kv_head * per_kv + group.x % groups * GROUP;
  let heads = min(GROUP, (kv_head + 1u) * per_kv - head);
  let owns = row.position / WG % SPLITS == group.y;
  let seen = window_start(row.position);
  // This split's first block that the row sees.
  let start = WG * (group.y + (max(seen / WG, group.y) - group.y + SPLITS - 1u) / SPLITS * SPLITS);
  if (t < 4u) {
    page_at[t] = kv_page(row.sequence, start + 32u * t, kv_head);
  }
  if (t == 0u) {
    weights[WG] = vec4<f32>();
  }
  load_queries(group.z, row.position, head, heads, t);
  if (owns) {
    let k = (group.z * (HEADS + 2u * KV_HEADS) + HEADS + kv_head) * (HEAD_DIM / 4u);
    load_own(row.position, k, k + KV_HEADS * (HEAD_DIM / 4u), t);
  }
  workgroupBarrier();
  if (owns) {
    store_own(row, kv_head, t);
    storageBarrier();
    workgroupBarrier();
  }

  // A thread scores position t of a block, then sums one unit of V over every lanes'th position.
  let units = HEAD_DIM / 8u;
  let lanes = WG / units;
  let unit = t % units;
  var most = vec4<f32>(-3.0e38);
  var sum = vec4<f32>();
  var sums = Sums();
  var slot = 0u;
  // A step that waits for the host may be longer than its row: what lies beyond is not merged.
  for (var first = start; first <= row.position; first += WG * SPLITS) {
    let count = min(WG, row.position + 1u - first);
    var next_page = 0u;
    if (t < 4u) {
      next_page = kv_page(row.sequence, first + WG * SPLITS + 32u * t, kv_head);
    }
    var score = vec4<f32>(-3.0e38);
    var scale = 1.0;  // of V
    let visible = t < count && first + t >= seen;
    if (visible) {
      score = score_position(page_at[slot + t / 32u], t % 32u);
      if (KV_SCALES > 0u) {
        scale = kv_scale(v_cache[page_at[slot + t / 32u] + scales_at(t % 32u)], 0u);
      }
    }
    var p = t / units;
    var values = load_values(slot, unit, p, lanes, count - 1u);
    let larger = max(most, reduce_max(score, lane));
    let keep = exp(most - larger);
    let weight = select(vec4<f32>(), exp(score - larger), visible);
    most = larger;
    sum = sum * keep + weight;
    sums = Sums(scaled(sums.low, keep), scaled(sums.high, keep));
    weights[t] = weight * scale;
    if (t < 4u) {
      page_at[4u - slot + t] = next_page;
    }
    workgroupBarrier();
    sums = add_values(sums, p, lanes, values);
    for (p += 8u * lanes; p < count; p += 8u * lanes) {
      values = load_values(slot, unit, p, lanes, count - 1u);
      sums = add_values(sums, p, lanes, values);
    }
    slot = 4u - slot;
  }
  sum = reduce_add(sum, lane);
  let stat = (group.z * HEADS + head) * SPLITS + group.y;
  if (t < heads) {
    stats[stat + t * SPLITS] = vec2<f32>(of_head(most, t), of_head(sum, t));
  }
  write_part(t, 0u, heads, stat, mat4x4<f32>(sums.low[0], sums.high[0], sums.low[1], sums.high[1]));
  if (GROUP > 2u) {
    write_part(t, 2u, heads, stat, mat4x4<f32>(sums.low[2], sums.high[2], sums.low[3], sums.high[3]));
  }
}

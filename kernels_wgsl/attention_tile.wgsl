// attention_tile: y[r, h] = softmax(q[r, h] . K SCALE) V over the positions that row r sees, up to its own
// binding 0 step    read       Step             one record a row, consecutive positions of one sequence
// binding 3 qkv     read       array<vec4<f32>> [rows][HEADS + 2 KV_HEADS][HEAD_DIM / 4] rotated
// binding 4 k_cache read       array<KvUnit>    [pages][KV_HEADS][HEAD_DIM / 8 + KV_SCALES][32]
// binding 5 v_cache read       array<KvUnit>    [pages][KV_HEADS][32][HEAD_DIM / 8 + KV_SCALES] scales behind all units
// binding 6 y       read_write array<vec4<f32>> [rows][HEADS][HEAD_DIM / 4]
// grid    HEADS, rows / 32
// uses    step pages kv outer cap window
// why     Flash attention (Dao et al. 2022): 32 rows meet a page of 32 keys, 4 x 4 scores a thread; the softmax is corrected page by page. Two teams of threads take every other page each.

override HEADS: u32;
override SCALE: f32;

@group(0) @binding(0) var<storage, read> step: Step;
@group(0) @binding(3) var<storage, read> qkv: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> k_cache: array<KvUnit>;
@group(0) @binding(5) var<storage, read> v_cache: array<KvUnit>;
@group(0) @binding(6) var<storage, read_write> y: array<vec4<f32>>;

// Of each team, 256 after another: queries, and keys or values. 32 numbers of a head at a time: [32 numbers][32 rows or
// keys / 4]; V lies as it is, [32 keys][8 quads]. In between the first holds weights, [32 keys][32 rows / 4], and the second
// one vector a thread.
var<workgroup> q_block: array<vec4<f32>, 512>;
var<workgroup> kv_block: array<vec4<f32>, 512>;

struct Place {
  t: u32,          // of the team
  own: u32,        // where the team's part of a block begins
  four: u32,       // t / 8: this thread's four rows
  lane: u32,       // t % 8: its four keys, then its quad of a block
  head: u32,
  first_row: u32,
  rows: u32,       // of this workgroup
}

fn query_quad(at: Place, row: u32, quad: u32) -> vec4<f32> {
  if (row >= at.rows || quad >= HEAD_DIM / 4u) {
    return vec4<f32>();
  }
  return qkv[((at.first_row + row) * (HEADS + 2u * KV_HEADS) + at.head) * (HEAD_DIM / 4u) + quad];
}

fn key_unit(page: u32, key: u32, unit: u32) -> mat2x4<f32> {
  if (unit >= HEAD_DIM / 8u) {
    return mat2x4<f32>();
  }
  var scales = KvUnit();
  if (KV_SCALES > 0u) {
    scales = k_cache[page + scales_at(key)];
  }
  return kv_scale(scales, kv_quarter(unit)) * kv_unpack(k_cache[page + k_at(key, unit)]);
}

// Eight numbers of four rows or keys, into the block's rows of `unit`: one thread loads for q, another for K.
fn load_units(at: Place, page: u32, block: u32) {
  let unit = at.four % 4u;
  let from_unit = block / 8u + unit;
  let first = 4u * at.lane;
  let to = at.own + unit * 64u + at.lane;
  if (at.four < 4u) {
    let a = key_unit(page, first, from_unit);
    let b = key_unit(page, first + 1u, from_unit);
    let c = key_unit(page, first + 2u, from_unit);
    let d = key_unit(page, first + 3u, from_unit);
    let low = transpose(mat4x4<f32>(a[0], b[0], c[0], d[0]));
    let high = transpose(mat4x4<f32>(a[1], b[1], c[1], d[1]));
    kv_block[to] = low[0];
    kv_block[to + 8u] = low[1];
    kv_block[to + 16u] = low[2];
    kv_block[to + 24u] = low[3];
    kv_block[to + 32u] = high[0];
    kv_block[to + 40u] = high[1];
    kv_block[to + 48u] = high[2];
    kv_block[to + 56u] = high[3];
  } else {
    let quad = 2u * from_unit;
    let low = transpose(mat4x4<f32>(
      query_quad(at, first, quad), query_quad(at, first + 1u, quad),
      query_quad(at, first + 2u, quad), query_quad(at, first + 3u, quad),
    ));
    let high = transpose(mat4x4<f32>(
      query_quad(at, first, quad + 1u), query_quad(at, first + 1u, quad + 1u),
      query_quad(at, first + 2u, quad + 1u), query_quad(at, first + 3u, quad + 1u),
    ));
    q_block[to] = low[0];
    q_block[to + 8u] = low[1];
    q_block[to + 16u] = low[2];
    q_block[to + 24u] = low[3];
    q_block[to + 32u] = high[0];
    q_block[to + 40u] = high[1];
    q_block[to + 48u] = high[2];
    q_block[to + 56u] = high[3];
  }
}

// Four numbers of four queries and four keys, or the weights of four rows for four keys and a quad of their values, added
// to `sum` one after another, so that each product and its sum are one instruction. Written out: a compiler that guards
// its loops does not unroll them.
fn add_four(sum: mat4x4<f32>, q: u32, k: u32) -> mat4x4<f32> {
  let a = sum + outer(q_block[q], kv_block[k]);
  let b = a + outer(q_block[q + 8u], kv_block[k + 8u]);
  let c = b + outer(q_block[q + 16u], kv_block[k + 16u]);
  return c + outer(q_block[q + 24u], kv_block[k + 24u]);
}

fn score_page(at: Place, page: u32) -> mat4x4<f32> {
  var score = mat4x4<f32>();
  for (var block = 0u; block < HEAD_DIM; block += 32u) {
    workgroupBarrier();
    load_units(at, page, block);
    workgroupBarrier();
    for (var d = 0u; d < 256u; d += 32u) {
      score = add_four(score, at.own + d + at.four, at.own + d + at.lane);
    }
  }
  return score;
}

// Scores of one row, as far as it may see them: `visible` keys of this page, or the last WINDOW of those.
fn masked(score: vec4<f32>, key: u32, visible: i32) -> vec4<f32> {
  let keys = vec4<i32>(i32(key)) + vec4<i32>(0, 1, 2, 3);
  var sees = keys < vec4<i32>(visible);
  if (WINDOW > 0u) {
    sees = sees & (keys >= vec4<i32>(visible - i32(WINDOW)));
  }
  return select(vec4<f32>(-3.0e38), capped(score * SCALE), sees);
}

fn largest(v: vec4<f32>) -> f32 {
  return max(max(v.x, v.y), max(v.z, v.w));
}

// Where the vectors begin that the eight threads of four rows hand each other. Holds barriers.
fn exchange(at: Place, mine: vec4<f32>) -> u32 {
  workgroupBarrier();
  kv_block[at.own + at.t] = mine;
  workgroupBarrier();
  return at.own + at.four * 8u;
}

fn max_of_lanes(at: Place, mine: vec4<f32>) -> vec4<f32> {
  let i = exchange(at, mine);
  let low = max(max(kv_block[i], kv_block[i + 1u]), max(kv_block[i + 2u], kv_block[i + 3u]));
  return max(low, max(max(kv_block[i + 4u], kv_block[i + 5u]), max(kv_block[i + 6u], kv_block[i + 7u])));
}

fn sum_of_lanes(at: Place, mine: vec4<f32>) -> vec4<f32> {
  let i = exchange(at, mine);
  let low = kv_block[i] + kv_block[i + 1u] + kv_block[i + 2u] + kv_block[i + 3u];
  return low + kv_block[i + 4u] + kv_block[i + 5u] + kv_block[i + 6u] + kv_block[i + 7u];
}

// What the other team's thread for the same rows and keys has. Holds barriers.
fn of_other(at: Place, mine: vec4<f32>) -> vec4<f32> {
  exchange(at, mine);
  return kv_block[(at.own + at.t) ^ 256u];
}

fn value_unit(page: u32, key: u32, unit: u32) -> mat2x4<f32> {
  if (unit >= HEAD_DIM / 8u) {
    return mat2x4<f32>();
  }
  var scales = KvUnit();
  if (KV_SCALES > 0u) {
    scales = v_cache[page + scales_at(key)];
  }
  return kv_scale(scales, 0u) * kv_unpack(v_cache[page + v_at(key, unit)]);
}

// total * keep (a factor a row) + the page's weighted values at this thread's quad of a block. Holds barriers.
fn add_values(at: Place, page: u32, block: u32, total: mat4x4<f32>, keep: vec4<f32>) -> mat4x4<f32> {
  workgroupBarrier();
  for (var key = at.t / 4u; key < 32u; key += 16u) {
    let value = value_unit(page, key, block * 4u + at.t % 4u);
    let to = at.own + key * 8u + at.t % 4u * 2u;
    kv_block[to] = value[0];
    kv_block[to + 1u] = value[1];
  }
  workgroupBarrier();
  var sum = scaled(total, keep);
  for (var key = 0u; key < 256u; key += 32u) {
    sum = add_four(sum, at.own + key + at.four, at.own + key + at.lane);
  }
  return sum;
}

fn scaled(m: mat4x4<f32>, rows: vec4<f32>) -> mat4x4<f32> {
  return mat4x4<f32>(m[0] * rows.x, m[1] * rows.y, m[2] * rows.z, m[3] * rows.w);
}

fn put_quad(at: Place, i: u32, quad: u32, v: vec4<f32>) {
  let row = 4u * at.four + i;
  if (at.own == 0u && row < at.rows && quad < HEAD_DIM / 4u) {
    y[((at.first_row + row) * HEADS + at.head) * (HEAD_DIM / 4u) + quad] = v;
  }
}

// Adds what both teams have of a block, times `share`, and writes it. Holds barriers. Written out: what is indexed by a
// variable, which must be checked, is kept in memory and not in registers.
fn write(at: Place, block: u32, total: mat4x4<f32>, share: vec4<f32>) {
  let quad = block * 8u + at.lane;
  let m = scaled(total, share);
  put_quad(at, 0u, quad, m[0] + of_other(at, m[0]));
  put_quad(at, 1u, quad, m[1] + of_other(at, m[1]));
  put_quad(at, 2u, quad, m[2] + of_other(at, m[2]));
  put_quad(at, 3u, quad, m[3] + of_other(at, m[3]));
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let first_row = group.y * 32u;
  let rows = min(32u, step.rows - first_row);
  let team = thread / 64u;
  let t = thread % 64u;
  let at = Place(t, team * 256u, t / 8u, t % 8u, group.x, first_row, rows);
  let sequence = step.row[first_row].sequence;
  let first_position = step.row[first_row].position;
  let kv_head = group.x / (HEADS / KV_HEADS);

  var most = vec4<f32>(-1.0e38);  // above that of what may not be seen, whose weights are 0 so
  var sum = vec4<f32>();
  // One matrix a block of 32: an array would lie in memory. Blocks beyond HEAD_DIM are compiled away.
  var t0 = mat4x4<f32>();
  var t1 = mat4x4<f32>();
  var t2 = mat4x4<f32>();
  var t3 = mat4x4<f32>();
  var t4 = mat4x4<f32>();
  var t5 = mat4x4<f32>();
  var t6 = mat4x4<f32>();
  var t7 = mat4x4<f32>();
  let end = first_position + rows;
  for (var first = window_start(first_position) / 64u * 64u; first < end; first += 64u) {
    let base = first + 32u * team;
    let page = kv_page(sequence, min(base, end - 1u), kv_head);  // the last team's may lie beyond, where it sees nothing
    var s = score_page(at, page);
    let visible = i32(first_position + 4u * at.four + 1u) - i32(base);
    s[0] = masked(s[0], 4u * at.lane, visible);
    s[1] = masked(s[1], 4u * at.lane, visible + 1);
    s[2] = masked(s[2], 4u * at.lane, visible + 2);
    s[3] = masked(s[3], 4u * at.lane, visible + 3);
    let mine = vec4<f32>(largest(s[0]), largest(s[1]), largest(s[2]), largest(s[3]));
    let larger = max(most, max_of_lanes(at, mine));
    let keep = exp(most - larger);
    most = larger;
    s = mat4x4<f32>(exp(s[0] - most.x), exp(s[1] - most.y), exp(s[2] - most.z), exp(s[3] - most.w));
    let by_key = transpose(s);
    let to = at.own + at.lane * 32u + at.four;
    q_block[to] = by_key[0];
    q_block[to + 8u] = by_key[1];
    q_block[to + 16u] = by_key[2];
    q_block[to + 24u] = by_key[3];
    sum = sum * keep + by_key[0] + by_key[1] + by_key[2] + by_key[3];  // of this thread's keys
    t0 = add_values(at, page, 0u, t0, keep);
    if (HEAD_DIM > 32u) { t1 = add_values(at, page, 1u, t1, keep); }
    if (HEAD_DIM > 64u) { t2 = add_values(at, page, 2u, t2, keep); }
    if (HEAD_DIM > 96u) { t3 = add_values(at, page, 3u, t3, keep); }
    if (HEAD_DIM > 128u) { t4 = add_values(at, page, 4u, t4, keep); }
    if (HEAD_DIM > 160u) { t5 = add_values(at, page, 5u, t5, keep); }
    if (HEAD_DIM > 192u) { t6 = add_values(at, page, 6u, t6, keep); }
    if (HEAD_DIM > 224u) { t7 = add_values(at, page, 7u, t7, keep); }
  }
  sum = sum_of_lanes(at, sum);
  let larger = max(most, of_other(at, most));
  let weight = exp(most - larger);
  let share = weight / (weight * sum + of_other(at, weight * sum));
  write(at, 0u, t0, share);
  if (HEAD_DIM > 32u) { write(at, 1u, t1, share); }
  if (HEAD_DIM > 64u) { write(at, 2u, t2, share); }
  if (HEAD_DIM > 96u) { write(at, 3u, t3, share); }
  if (HEAD_DIM > 128u) { write(at, 4u, t4, share); }
  if (HEAD_DIM > 160u) { write(at, 5u, t5, share); }
  if (HEAD_DIM > 192u) { write(at, 6u, t6, share); }
  if (HEAD_DIM > 224u) { write(at, 7u, t7, share); }
}

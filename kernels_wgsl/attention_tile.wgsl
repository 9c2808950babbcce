// attention_tile: y[r, h] = softmax(q[r, h] . K SCALE) V over positions up to that of row r
// binding 0 step    read       Step             one record a row, consecutive positions of one sequence
// binding 3 qkv     read       array<vec4<f32>> [rows][HEADS + 2 KV_HEADS][HEAD_DIM / 4] rotated
// binding 4 k_cache read       array<KvQuad>    [pages][KV_HEADS][32][HEAD_DIM / 4]
// binding 5 v_cache read       array<KvQuad>    [pages][KV_HEADS][32][HEAD_DIM / 4]
// binding 6 y       read_write array<vec4<f32>> [rows][HEADS][HEAD_DIM / 4]
// grid    HEADS, rows / 32
// uses    step pages kv outer
// why     Flash attention (Dao et al. 2022): 32 rows meet a page of 32 keys, 4 x 4 scores a thread; the softmax is corrected page by page.

override HEADS: u32;
override SCALE: f32;

@group(0) @binding(0) var<storage, read> step: Step;
@group(0) @binding(3) var<storage, read> qkv: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> k_cache: array<KvQuad>;
@group(0) @binding(5) var<storage, read> v_cache: array<KvQuad>;
@group(0) @binding(6) var<storage, read_write> y: array<vec4<f32>>;

// 32 numbers of a head at a time: [32 numbers][32 rows or keys / 4]; V lies as it is, [32 keys][8 quads].
var<workgroup> q_block: array<vec4<f32>, 256>;
var<workgroup> kv_block: array<vec4<f32>, 256>;
var<workgroup> weights: array<vec4<f32>, 256>;  // [32 keys][32 rows / 4]
var<workgroup> lanes: array<vec4<f32>, 64>;     // [8 fours of rows][8 threads]

struct Place {
  t: u32,
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

fn key_quad(page: u32, key: u32, quad: u32) -> vec4<f32> {
  if (quad >= HEAD_DIM / 4u) {
    return vec4<f32>();
  }
  return kv_unpack(k_cache[page + key * (HEAD_DIM / 4u) + quad]);
}

// Scores of this thread's four rows (columns of the matrix) and four keys. Holds barriers.
fn score_page(at: Place, page: u32) -> mat4x4<f32> {
  var score = mat4x4<f32>();
  for (var block = 0u; block < HEAD_DIM; block += 32u) {
    let quad = block / 4u + at.four;
    let row = 4u * at.lane;
    workgroupBarrier();
    let q = transpose(mat4x4<f32>(
      query_quad(at, row, quad), query_quad(at, row + 1u, quad),
      query_quad(at, row + 2u, quad), query_quad(at, row + 3u, quad),
    ));
    let k = transpose(mat4x4<f32>(
      key_quad(page, row, quad), key_quad(page, row + 1u, quad),
      key_quad(page, row + 2u, quad), key_quad(page, row + 3u, quad),
    ));
    let to = at.four * 32u + at.lane;
    q_block[to] = q[0];
    q_block[to + 8u] = q[1];
    q_block[to + 16u] = q[2];
    q_block[to + 24u] = q[3];
    kv_block[to] = k[0];
    kv_block[to + 8u] = k[1];
    kv_block[to + 16u] = k[2];
    kv_block[to + 24u] = k[3];
    workgroupBarrier();
    for (var d = 0u; d < 256u; d += 8u) {
      score += outer(q_block[d + at.four], kv_block[d + at.lane]);
    }
  }
  return score;
}

// Scores of one row, as far as it may see them: `visible` keys of this page.
fn masked(score: vec4<f32>, key: u32, visible: i32) -> vec4<f32> {
  let keys = vec4<i32>(i32(key)) + vec4<i32>(0, 1, 2, 3);
  return select(vec4<f32>(-3.0e38), score * SCALE, keys < vec4<i32>(visible));
}

fn largest(v: vec4<f32>) -> f32 {
  return max(max(v.x, v.y), max(v.z, v.w));
}

// The maximum over the eight threads of four rows. Holds barriers.
fn max_of_lanes(at: Place, mine: vec4<f32>) -> vec4<f32> {
  workgroupBarrier();
  lanes[at.t] = mine;
  workgroupBarrier();
  var most = mine;
  for (var i = 0u; i < 8u; i++) {
    most = max(most, lanes[at.four * 8u + i]);
  }
  return most;
}

fn sum_of_lanes(at: Place, mine: vec4<f32>) -> vec4<f32> {
  workgroupBarrier();
  lanes[at.t] = mine;
  workgroupBarrier();
  var sum = vec4<f32>();
  for (var i = 0u; i < 8u; i++) {
    sum += lanes[at.four * 8u + i];
  }
  return sum;
}

// total * keep (a factor a row) + the page's weighted values at this thread's quad of a block. Holds barriers.
fn add_values(at: Place, page: u32, block: u32, total: mat4x4<f32>, keep: vec4<f32>) -> mat4x4<f32> {
  let quad = block * 8u + at.lane;
  workgroupBarrier();
  for (var key = at.four; key < 32u; key += 8u) {
    var value = vec4<f32>();
    if (quad < HEAD_DIM / 4u) {
      value = kv_unpack(v_cache[page + key * (HEAD_DIM / 4u) + quad]);
    }
    kv_block[key * 8u + at.lane] = value;
  }
  workgroupBarrier();
  var sum = mat4x4<f32>(total[0] * keep.x, total[1] * keep.y, total[2] * keep.z, total[3] * keep.w);
  for (var key = 0u; key < 256u; key += 8u) {
    sum += outer(weights[key + at.four], kv_block[key + at.lane]);
  }
  return sum;
}

fn write(at: Place, block: u32, total: mat4x4<f32>, sum: vec4<f32>) {
  let quad = block * 8u + at.lane;
  if (quad >= HEAD_DIM / 4u) {
    return;
  }
  for (var i = 0u; i < 4u && 4u * at.four + i < at.rows; i++) {
    y[((at.first_row + 4u * at.four + i) * HEADS + at.head) * (HEAD_DIM / 4u) + quad] = total[i] / sum[i];
  }
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let first_row = group.y * 32u;
  let rows = min(32u, step.rows - first_row);
  let at = Place(t, t / 8u, t % 8u, group.x, first_row, rows);
  let sequence = step.row[first_row].sequence;
  let first_position = step.row[first_row].position;
  let kv_head = group.x / (HEADS / KV_HEADS);

  var most = vec4<f32>(-3.0e38);
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
  for (var base = 0u; base < first_position + rows; base += 32u) {
    let page = kv_index(sequence, base, kv_head);
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
    let to = at.lane * 32u + at.four;
    weights[to] = by_key[0];
    weights[to + 8u] = by_key[1];
    weights[to + 16u] = by_key[2];
    weights[to + 24u] = by_key[3];
    sum = sum * keep + sum_of_lanes(at, by_key[0] + by_key[1] + by_key[2] + by_key[3]);
    t0 = add_values(at, page, 0u, t0, keep);
    if (HEAD_DIM > 32u) { t1 = add_values(at, page, 1u, t1, keep); }
    if (HEAD_DIM > 64u) { t2 = add_values(at, page, 2u, t2, keep); }
    if (HEAD_DIM > 96u) { t3 = add_values(at, page, 3u, t3, keep); }
    if (HEAD_DIM > 128u) { t4 = add_values(at, page, 4u, t4, keep); }
    if (HEAD_DIM > 160u) { t5 = add_values(at, page, 5u, t5, keep); }
    if (HEAD_DIM > 192u) { t6 = add_values(at, page, 6u, t6, keep); }
    if (HEAD_DIM > 224u) { t7 = add_values(at, page, 7u, t7, keep); }
  }
  write(at, 0u, t0, sum);
  write(at, 1u, t1, sum);
  write(at, 2u, t2, sum);
  write(at, 3u, t3, sum);
  write(at, 4u, t4, sum);
  write(at, 5u, t5, sum);
  write(at, 6u, t6, sum);
  write(at, 7u, t7, sum);
}

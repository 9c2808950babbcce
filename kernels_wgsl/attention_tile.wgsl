// attention_tile: y[r, h] = softmax(q[r, h] . K SCALE) V over positions up to that of row r
// binding 0 step    read       Step             one record a row, consecutive positions of one sequence
// binding 1 qkv     read       array<vec4<f32>> [rows][HEADS + 2 KV_HEADS][HEAD_DIM / 4]
// binding 3 k_cache read       array<KvQuad>    [pages][KV_HEADS][32][HEAD_DIM / 4]
// binding 4 v_cache read       array<KvQuad>    [pages][KV_HEADS][32][HEAD_DIM / 4]
// binding 5 y       read_write array<vec4<f32>> [rows][HEADS][HEAD_DIM / 4]
// grid    HEADS, rows / TILE
// uses    step pages kv
// why     Flash attention (Dao et al. 2022): scores live in workgroup memory, the softmax is corrected tile by tile.

override HEADS: u32;
override SCALE: f32;
override TILE: u32;         // query rows a workgroup; 8 threads share a row
override TILE_QUADS: u32;   // TILE HEAD_DIM / 4
override KEYS: u32;         // keys a tile, a multiple of 8
override KEYS_QUADS: u32;   // KEYS HEAD_DIM / 4
override SCORES: u32;       // TILE KEYS
override WG: u32;           // 8 TILE

@group(0) @binding(0) var<storage, read> step: Step;
@group(0) @binding(1) var<storage, read> qkv: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> k_cache: array<KvQuad>;
@group(0) @binding(4) var<storage, read> v_cache: array<KvQuad>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>;

var<workgroup> query: array<vec4<f32>, TILE_QUADS>;
var<workgroup> keys: array<KvQuad, KEYS_QUADS>;  // K, then V of the same positions
var<workgroup> score: array<f32, SCORES>;

fn score_of(r: u32, j: u32) -> f32 {
  var sum = 0.0;
  for (var quad = 0u; quad < HEAD_DIM / 4u; quad++) {
    sum += dot(query[r * (HEAD_DIM / 4u) + quad], kv_unpack(keys[j * (HEAD_DIM / 4u) + quad]));
  }
  return sum * SCALE;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let quads = HEAD_DIM / 4u;
  let kv_head = group.x / (HEADS / KV_HEADS);
  let first_row = group.y * TILE;
  let rows = min(TILE, step.rows - first_row);
  let sequence = step.row[first_row].sequence;
  let first_position = step.row[first_row].position;
  let length = first_position + rows;  // of the last row
  for (var i = t; i < rows * quads; i += WG) {
    query[i] = qkv[((first_row + i / quads) * (HEADS + 2u * KV_HEADS) + group.x) * quads + i % quads];
  }

  let r = t / 8u;
  let lane = t % 8u;
  let visible = first_position + r + 1u;  // keys that row r attends to
  var most = -3.0e38;
  var sum = 0.0;
  var total: array<vec4<f32>, 8>;  // quads lane, lane + 8, ... of row r
  for (var base = 0u; base < length; base += KEYS) {
    let count = min(KEYS, length - base);
    workgroupBarrier();
    for (var i = t; i < count * quads; i += WG) {
      keys[i] = k_cache[kv_index(sequence, base + i / quads, kv_head) + i % quads];
    }
    workgroupBarrier();
    for (var j = lane; j < KEYS; j += 8u) {
      var value = -3.0e38;
      if (r < rows && j < count && base + j < visible) {
        value = score_of(r, j);
      }
      score[r * KEYS + j] = value;
    }
    workgroupBarrier();
    for (var i = t; i < count * quads; i += WG) {
      keys[i] = v_cache[kv_index(sequence, base + i / quads, kv_head) + i % quads];
    }
    var new_most = most;
    for (var j = 0u; j < KEYS; j++) {
      new_most = max(new_most, score[r * KEYS + j]);
    }
    workgroupBarrier();
    let keep = exp(most - new_most);
    most = new_most;
    sum *= keep;
    for (var i = 0u; i < 8u; i++) {
      total[i] *= keep;
    }
    // A row whose keys are all behind it has new_most -3e38 only before its first tile: position 0 is always visible.
    for (var j = 0u; j < count; j++) {
      let weight = exp(score[r * KEYS + j] - most);
      sum += weight;
      for (var i = 0u; i < 8u && lane + 8u * i < quads; i++) {
        total[i] += weight * kv_unpack(keys[j * quads + lane + 8u * i]);
      }
    }
  }
  if (r < rows) {
    for (var i = 0u; i < 8u && lane + 8u * i < quads; i++) {
      y[((first_row + r) * HEADS + group.x) * quads + lane + 8u * i] = total[i] / sum;
    }
  }
}

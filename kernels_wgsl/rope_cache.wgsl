// rope_cache: rotates q and k by position, in place for q; writes k and v to the cache
// binding 0 step    read       Step             one record a row
// binding 3 qkv     read_write array<vec4<f32>> [rows][HEADS + 2 KV_HEADS][HEAD_DIM / 4]
// binding 4 k_cache read_write array<KvUnit>    [pages][KV_HEADS][HEAD_DIM / 8 + KV_SCALES][32]
// binding 5 v_cache read_write array<KvUnit>    [pages][KV_HEADS][32][HEAD_DIM / 8 + KV_SCALES] scales behind all units
// grid    HEADS + KV_HEADS, rows
// uses    step pages kv rope store
// why     In prefill rows attend to each other, so all of them must be in the cache first; decode needs no such step.

override HEADS: u32;

@group(0) @binding(0) var<storage, read> step: Step;
@group(0) @binding(3) var<storage, read_write> qkv: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> k_cache: array<KvUnit>;
@group(0) @binding(5) var<storage, read_write> v_cache: array<KvUnit>;

var<workgroup> scratch: array<vec4<f32>, 384>;  // the second half: k and v, see `store`

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  // A workgroup takes a head of q, or one of k and of v.
  let head = group.x;
  let row = step.row[group.y];
  let half = HEAD_DIM / 8u;
  let at = (group.y * (HEADS + 2u * KV_HEADS) + head) * 2u * half;
  if (head >= HEADS) {
    load_own(row.position, at, at + KV_HEADS * 2u * half, t);
    workgroupBarrier();
    store_own(row, head - HEADS, t);
  } else if (t < half) {
    let low = at + pair_low(t);
    let high = at + pair_high(t);
    let turned = rotate(row.position, t, qkv[low], qkv[high]);
    qkv[low] = turned[0];
    qkv[high] = turned[1];
  }
}

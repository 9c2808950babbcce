// rope_cache: rotates q and k by position, in place for q; writes k and v to the cache
// binding 0 step    read       Step             one record a row
// binding 3 qkv     read_write array<vec4<f32>> [rows][HEADS + 2 KV_HEADS][HEAD_DIM / 4]
// binding 4 k_cache read_write array<KvQuad>    [pages][KV_HEADS][32][HEAD_DIM / 4]
// binding 5 v_cache read_write array<KvQuad>    [pages][KV_HEADS][32][HEAD_DIM / 4]
// grid    (HEADS + 2 KV_HEADS) HEAD_DIM / 512, rows
// uses    step pages kv rope
// why     In prefill rows attend to each other, so all of them must be in the cache first; decode needs no such step.

override HEADS: u32;

@group(0) @binding(0) var<storage, read> step: Step;
@group(0) @binding(3) var<storage, read_write> qkv: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> k_cache: array<KvQuad>;
@group(0) @binding(5) var<storage, read_write> v_cache: array<KvQuad>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  // One thread turns quad i of a head's first half with quad i of its second half.
  let half = HEAD_DIM / 8u;
  let head = id.x / half;
  let i = id.x % half;
  if (head >= HEADS + 2u * KV_HEADS) {
    return;
  }
  let row = step.row[id.y];
  let at = (id.y * (HEADS + 2u * KV_HEADS) + head) * (HEAD_DIM / 4u) + i;
  let a = qkv[at];
  let b = qkv[at + half];
  if (head >= HEADS + KV_HEADS) {
    let to = kv_index(row.sequence, row.position, head - HEADS - KV_HEADS) + i;
    v_cache[to] = kv_pack(a);
    v_cache[to + half] = kv_pack(b);
    return;
  }
  let turned = rotate(row.position, i, a, b);
  if (head < HEADS) {
    qkv[at] = turned[0];
    qkv[at + half] = turned[1];
  } else {
    let to = kv_index(row.sequence, row.position, head - HEADS) + i;
    k_cache[to] = kv_pack(turned[0]);
    k_cache[to + half] = kv_pack(turned[1]);
  }
}

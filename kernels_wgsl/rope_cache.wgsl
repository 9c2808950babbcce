// rope_cache: rotates q and k by position, in place for q; writes k and v to the cache
// binding 0 step    read       Step             one record a row
// binding 1 rope    read       array<vec2<f32>> [256 low, then high positions][HEAD_DIM / 2] cos, sin
// binding 3 qkv     read_write array<vec4<f32>> [rows][HEADS + 2 KV_HEADS][HEAD_DIM / 4]
// binding 4 k_cache read_write array<KvQuad>    [pages][KV_HEADS][32][HEAD_DIM / 4]
// binding 5 v_cache read_write array<KvQuad>    [pages][KV_HEADS][32][HEAD_DIM / 4]
// grid    (HEADS + 2 KV_HEADS) HEAD_DIM / 512, rows
// uses    step pages kv
// why     An angle is the sum of a low and a high part, from two small exact tables: sin and cos of WGSL may be off by 5e-4.

override HEADS: u32;

@group(0) @binding(0) var<storage, read> step: Step;
@group(0) @binding(1) var<storage, read> rope: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read_write> qkv: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> k_cache: array<KvQuad>;
@group(0) @binding(5) var<storage, read_write> v_cache: array<KvQuad>;

// (cos, sin) of `position` times frequency i.
fn rotation(position: u32, i: u32) -> vec2<f32> {
  let a = rope[(position % 256u) * (HEAD_DIM / 2u) + i];
  let b = rope[(256u + position / 256u) * (HEAD_DIM / 2u) + i];
  return vec2<f32>(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x);
}

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
  var c: vec4<f32>;
  var s: vec4<f32>;
  for (var j = 0u; j < 4u; j++) {
    let turn = rotation(row.position, i * 4u + j);
    c[j] = turn.x;
    s[j] = turn.y;
  }
  if (head < HEADS) {
    qkv[at] = a * c - b * s;
    qkv[at + half] = b * c + a * s;
  } else {
    let to = kv_index(row.sequence, row.position, head - HEADS) + i;
    k_cache[to] = kv_pack(a * c - b * s);
    k_cache[to + half] = kv_pack(b * c + a * s);
  }
}

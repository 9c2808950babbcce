// store: a row's own k, rotated, and v: from qkv to the kernel's workgroup array `scratch`, from there to the cache
// uses    pages kv rope
// why     A unit of eight numbers has parts of rotated pairs that lie far apart.

const OWN_K = 256u;  // where in `scratch` k begins
const OWN_V = 320u;

// Quads t and t + HEAD_DIM / 8 of one head; its k begins at quad `k` of qkv, its v at `v`.
fn load_own(position: u32, k: u32, v: u32, t: u32) {
  let half = HEAD_DIM / 8u;
  if (t < half) {
    let turned = rotate(position, t, qkv[k + t], qkv[k + half + t]);
    scratch[OWN_K + t] = turned[0];
    scratch[OWN_K + half + t] = turned[1];
    scratch[OWN_V + t] = qkv[v + t];
    scratch[OWN_V + half + t] = qkv[v + half + t];
  }
}

// Unit t of both, a barrier later.
fn store_own(row: Row, kv_head: u32, t: u32) {
  if (t < HEAD_DIM / 8u) {
    let page = kv_page(row.sequence, row.position, kv_head);
    let p = row.position % 32u;
    k_cache[page + k_at(p, t)] = kv_pack(own_unit(OWN_K, t));
    v_cache[page + v_at(p, t)] = kv_pack(own_unit(OWN_V, t));
  }
}

fn own_unit(first: u32, unit: u32) -> mat2x4<f32> {
  return mat2x4<f32>(scratch[first + 2u * unit], scratch[first + 2u * unit + 1u]);
}

// store: a row's own k, rotated, and v: from qkv to the kernel's workgroup array `scratch`, from there to the cache
// uses    pages kv rope
// why     A unit of eight numbers has parts of rotated pairs that lie far apart.

const OWN_K = 256u;  // where in `scratch` k begins
const OWN_V = 320u;

// The quads of pair t of one head; its k begins at quad `k` of qkv, its v at `v`.
fn load_own(position: u32, k: u32, v: u32, t: u32) {
  if (t < HEAD_DIM / 8u) {
    let low = pair_low(t);
    let high = pair_high(t);
    let turned = rotate(position, t, qkv[k + low], qkv[k + high]);
    scratch[OWN_K + low] = turned[0];
    scratch[OWN_K + high] = turned[1];
    scratch[OWN_V + low] = qkv[v + low];
    scratch[OWN_V + high] = qkv[v + high];
  }
}

// Unit t of both, a barrier later. V has one scale, so that the weight of its position can take it.
fn store_own(row: Row, kv_head: u32, t: u32) {
  if (t >= HEAD_DIM / 8u) {
    return;
  }
  let page = kv_page(row.sequence, row.position, kv_head);
  let p = row.position % 32u;
  var k_scales = KvUnit();
  var v_scales = KvUnit();
  if (KV_SCALES > 0u) {
    let v = own_largest(OWN_V);
    k_scales = kv_scales(own_largest(OWN_K));
    v_scales = kv_scales(vec4<f32>(max(max(v.x, v.y), max(v.z, v.w))));
    if (t == 0u) {
      k_cache[page + scales_at(p)] = k_scales;
      v_cache[page + scales_at(p)] = v_scales;
    }
  }
  k_cache[page + k_at(p, t)] = kv_pack(own_unit(OWN_K, t), kv_scale(k_scales, kv_quarter(t)));
  v_cache[page + v_at(p, t)] = kv_pack(own_unit(OWN_V, t), kv_scale(v_scales, 0u));
}

fn own_unit(first: u32, unit: u32) -> mat2x4<f32> {
  return mat2x4<f32>(scratch[first + 2u * unit], scratch[first + 2u * unit + 1u]);
}

// The largest magnitude in each quarter.
fn own_largest(first: u32) -> vec4<f32> {
  var most = vec4<f32>();
  for (var u = 0u; u < HEAD_DIM / 8u; u++) {
    let unit = own_unit(first, u);
    let each = max(abs(unit[0]), abs(unit[1]));
    let largest = max(max(each.x, each.y), max(each.z, each.w));
    most = select(most, max(most, vec4<f32>(largest)), vec4<u32>(0u, 1u, 2u, 3u) == vec4<u32>(kv_quarter(u)));
  }
  return most;
}

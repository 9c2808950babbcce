// kv f16: a unit of eight cached values as halves, packed two to a word
// why     unpack2x16float is core WGSL: no shader-f16 is needed for a cache of half the size.

alias KvUnit = vec4<u32>;

const KV_SCALES = 0u;  // units of scales a position, for each head

fn kv_scales(largest: vec4<f32>) -> KvUnit {
  return KvUnit();
}

fn kv_scale(scales: KvUnit, quarter: u32) -> f32 {
  return 1.0;
}

fn kv_pack(value: mat2x4<f32>, scale: f32) -> KvUnit {
  let a = value[0];
  let b = value[1];
  return vec4<u32>(pack2x16float(a.xy), pack2x16float(a.zw), pack2x16float(b.xy), pack2x16float(b.zw));
}

fn kv_unpack(unit: KvUnit) -> mat2x4<f32> {
  return mat2x4<f32>(
    vec4<f32>(unpack2x16float(unit.x), unpack2x16float(unit.y)),
    vec4<f32>(unpack2x16float(unit.z), unpack2x16float(unit.w)),
  );
}

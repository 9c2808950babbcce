// kv f32: a unit of eight cached values as they are

alias KvUnit = mat2x4<f32>;

const KV_SCALES = 0u;  // units of scales a position, for each head

fn kv_scales(largest: vec4<f32>) -> KvUnit {
  return KvUnit();
}

fn kv_scale(scales: KvUnit, quarter: u32) -> f32 {
  return 1.0;
}

fn kv_pack(value: mat2x4<f32>, scale: f32) -> KvUnit {
  return value;
}

fn kv_unpack(unit: KvUnit) -> mat2x4<f32> {
  return unit;
}

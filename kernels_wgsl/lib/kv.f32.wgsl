// kv f32: a unit of eight cached values as they are

alias KvUnit = mat2x4<f32>;

fn kv_pack(value: mat2x4<f32>) -> KvUnit {
  return value;
}

fn kv_unpack(unit: KvUnit) -> mat2x4<f32> {
  return unit;
}

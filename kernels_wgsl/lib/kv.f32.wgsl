// kv f32: four cached values as they are

alias KvQuad = vec4<f32>;

fn kv_pack(value: vec4<f32>) -> KvQuad {
  return value;
}

fn kv_unpack(packed: KvQuad) -> vec4<f32> {
  return packed;
}

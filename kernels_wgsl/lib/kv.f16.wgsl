// kv f16: four cached values as halves, packed two to a word
// why     unpack2x16float is core WGSL: no shader-f16 is needed for a cache of half the size.

alias KvQuad = vec2<u32>;

fn kv_pack(value: vec4<f32>) -> KvQuad {
  return vec2<u32>(pack2x16float(value.xy), pack2x16float(value.zw));
}

fn kv_unpack(packed: KvQuad) -> vec4<f32> {
  return vec4<f32>(unpack2x16float(packed.x), unpack2x16float(packed.y));
}

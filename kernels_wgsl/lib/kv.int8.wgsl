// kv int8: a unit of eight cached values as bytes; a scale for each quarter of a position's head
// why     Half of f16, plus 8 bytes a position and head. Approximate. A quarter has its own scale because a few numbers of K are far larger than the rest in many models.

alias KvUnit = vec2<u32>;

const KV_SCALES = 1u;  // units of scales a position, for each head

// Scales of quarters whose largest magnitudes are given: bfloat16, rounded up so that no byte exceeds 127.
fn kv_scales(largest: vec4<f32>) -> KvUnit {
  let rounded = (bitcast<vec4<u32>>(largest / 127.0) + vec4<u32>(0xFFFFu)) & vec4<u32>(0xFFFF0000u);
  return vec2<u32>((rounded.x >> 16u) | rounded.y, (rounded.z >> 16u) | rounded.w);
}

fn kv_scale(scales: KvUnit, quarter: u32) -> f32 {
  let pair = select(scales.x, scales.y, quarter > 1u);
  return bitcast<f32>(select(pair << 16u, pair & 0xFFFF0000u, quarter % 2u == 1u));
}

fn kv_bytes(value: vec4<f32>) -> u32 {
  let bytes = (vec4<u32>(vec4<i32>(round(value))) & vec4<u32>(255u)) << vec4<u32>(0u, 8u, 16u, 24u);
  return bytes.x | bytes.y | bytes.z | bytes.w;
}

// Scales too small for 1 / scale count as zero.
fn kv_pack(value: mat2x4<f32>, scale: f32) -> KvUnit {
  var factor = 0.0;
  if (scale > 1.0e-37) {
    factor = 1.0 / scale;
  }
  return vec2<u32>(kv_bytes(value[0] * factor), kv_bytes(value[1] * factor));
}

// To be multiplied with the scale.
fn kv_unpack(unit: KvUnit) -> mat2x4<f32> {
  return mat2x4<f32>(vec4<f32>(unpack4xI8(unit.x)), vec4<f32>(unpack4xI8(unit.y)));
}

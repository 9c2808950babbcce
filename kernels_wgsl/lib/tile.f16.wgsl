// tile f16: four numbers of a tile in workgroup memory, as halves; products and sums are in f32
// uses    outer
// needs   shader-f16
// why     Half the traffic within a workgroup. Approximate: weights and activations keep 11 bits.

alias TileQuad = vec4<f16>;

// Beyond 65504 a half is infinite, and one infinite activation makes every logit NaN.
fn tile_pack(v: vec4<f32>) -> TileQuad {
  return vec4<f16>(clamp(v, vec4<f32>(-65504.0), vec4<f32>(65504.0)));
}

fn tile_outer(a: TileQuad, b: TileQuad) -> mat4x4<f32> {
  return outer(vec4<f32>(a), vec4<f32>(b));
}

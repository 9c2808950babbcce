// tile f32: four numbers of a tile in workgroup memory, as they are
// uses    outer

alias TileQuad = vec4<f32>;

fn tile_pack(v: vec4<f32>) -> TileQuad {
  return v;
}

fn tile_outer(a: TileQuad, b: TileQuad) -> mat4x4<f32> {
  return outer(a, b);
}

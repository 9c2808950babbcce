// rope: cos and sin of position times frequency
// binding 1 rope read array<vec2<f32>> [256 low, then high positions][HEAD_DIM / 2] cos, sin
// why     An angle is the sum of a low and a high part, from two small exact tables: sin and cos of WGSL may be off by 5e-4.

@group(0) @binding(1) var<storage, read> rope: array<vec2<f32>>;

fn rope_angle(position: u32, i: u32) -> vec2<f32> {
  let a = rope[(position % 256u) * (HEAD_DIM / 2u) + i];
  let b = rope[(256u + position / 256u) * (HEAD_DIM / 2u) + i];
  return vec2<f32>(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x);
}

// Quad i of a head's first half (a) and second half (b), turned by their four angles.
fn rotate(position: u32, i: u32, a: vec4<f32>, b: vec4<f32>) -> array<vec4<f32>, 2> {
  let r0 = rope_angle(position, 4u * i);
  let r1 = rope_angle(position, 4u * i + 1u);
  let r2 = rope_angle(position, 4u * i + 2u);
  let r3 = rope_angle(position, 4u * i + 3u);
  let c = vec4<f32>(r0.x, r1.x, r2.x, r3.x);
  let s = vec4<f32>(r0.y, r1.y, r2.y, r3.y);
  return array<vec4<f32>, 2>(a * c - b * s, b * c + a * s);
}

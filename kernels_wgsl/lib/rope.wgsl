// rope: cos and sin of position times frequency
// binding 1 rope read array<vec2<f32>> [256 low, then high positions][ROTARY / 2] cos, sin
// why     An angle is the sum of a low and a high part, from two small exact tables: sin and cos of WGSL may be off by 5e-4.

override ROTARY: u32;  // numbers of a head that are rotated, its first ones, in eights; 0 for none

@group(0) @binding(1) var<storage, read> rope: array<vec2<f32>>;

fn rope_angle(position: u32, i: u32) -> vec2<f32> {
  let a = rope[(position % 256u) * (ROTARY / 2u) + i];
  let b = rope[(256u + position / 256u) * (ROTARY / 2u) + i];
  return vec2<f32>(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x);
}

// The two quads of a head that make pair i of HEAD_DIM / 8: half of what is rotated apart, then the rest side by side.
fn pair_low(i: u32) -> u32 {
  return select(i + ROTARY / 8u, i, i < ROTARY / 8u);
}

fn pair_high(i: u32) -> u32 {
  return select(i + HEAD_DIM / 8u, i + ROTARY / 8u, i < ROTARY / 8u);
}

// The quads of pair i, turned by their four angles.
fn rotate(position: u32, i: u32, a: vec4<f32>, b: vec4<f32>) -> array<vec4<f32>, 2> {
  if (ROTARY < HEAD_DIM && i >= ROTARY / 8u) {
    return array<vec4<f32>, 2>(a, b);
  }
  let r0 = rope_angle(position, 4u * i);
  let r1 = rope_angle(position, 4u * i + 1u);
  let r2 = rope_angle(position, 4u * i + 2u);
  let r3 = rope_angle(position, 4u * i + 3u);
  let c = vec4<f32>(r0.x, r1.x, r2.x, r3.x);
  let s = vec4<f32>(r0.y, r1.y, r2.y, r3.y);
  return array<vec4<f32>, 2>(a * c - b * s, b * c + a * s);
}

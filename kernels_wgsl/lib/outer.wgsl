// outer: a matrix whose row i is a[i] * b; sums of these are how 4 x 4 outputs share 8 inputs

fn outer(a: vec4<f32>, b: vec4<f32>) -> mat4x4<f32> {
  return mat4x4<f32>(a.x * b, a.y * b, a.z * b, a.w * b);
}

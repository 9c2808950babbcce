// noise: random numbers that follow from a seed, a place in the answer and a token, wherever they are computed

// pcg4d (Jarzynski and Olano 2020), of which one word is taken.
fn hash(seed: vec2<u32>, place: u32, token: u32) -> u32 {
  var v = vec4<u32>(seed, place, token) * 1664525u + 1013904223u;
  v.x += v.y * v.w;
  v.y += v.z * v.x;
  v.z += v.x * v.y;
  v.w += v.y * v.z;
  v ^= v >> vec4<u32>(16u);
  v.x += v.y * v.w;
  v.y += v.z * v.x;
  v.z += v.x * v.y;
  v.w += v.y * v.z;
  return v.w;
}

// Gumbel's: -log(-log(1 - w)), w even in (0, 1). The largest of score / temperature + noise is a sample of
// softmax(score / temperature). Large noise comes from small w, where log(1 - w) would lose all its digits.
fn noise(seed: vec2<u32>, place: u32, token: u32) -> f32 {
  let w = (f32(hash(seed, place, token)) + 0.5) * 2.3283064e-10;  // 2^-32
  let series = w * (1.0 + w * (0.5 + w * (0.33333334 + w * 0.25)));
  return -log(select(-log(max(1.0 - w, 2.9802322e-8)), series, w < 0.015625));
}

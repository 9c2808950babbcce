// cap: numbers softly kept within a bound (Gemma 2): CAP tanh(x / CAP), or as they are where CAP is 0

override CAP: f32 = 0.0;

// Beyond 15 tanh is 1 in f32, and some devices compute it by exponentials that overflow.
fn capped(x: vec4<f32>) -> vec4<f32> {
  if (CAP == 0.0) {
    return x;
  }
  return CAP * tanh(clamp(x / CAP, vec4<f32>(-15.0), vec4<f32>(15.0)));
}

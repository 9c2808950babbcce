// act: the activation functions of feed-forward layers

override ACT: u32 = 0;  // 0 SiLU, 1 GELU, 2 GELU by tanh

// erf to 1.5e-7 (Abramowitz and Stegun 1964, 7.1.26).
fn erf(x: f32) -> f32 {
  let t = 1.0 / (1.0 + 0.3275911 * abs(x));
  let series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  return sign(x) * (1.0 - series * exp(-x * x));
}

fn act(x: f32) -> f32 {
  if (ACT == 1u) {
    return 0.5 * x * (1.0 + erf(0.70710678 * x));
  }
  if (ACT == 2u) {
    return x / (1.0 + exp(-1.59576912 * (x + 0.044715 * x * x * x)));  // 0.5 (1 + tanh(z)) = 1 / (1 + exp(-2 z))
  }
  return x / (1.0 + exp(-x));
}

fn act4(x: vec4<f32>) -> vec4<f32> {
  if (ACT == 0u) {
    return x / (1.0 + exp(-x));
  }
  return vec4<f32>(act(x.x), act(x.y), act(x.z), act(x.w));
}

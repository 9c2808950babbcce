// int8: products of a weight's integers and packed activations
// uses    pack

// Sum of weights times inputs over half h of the weight's unit i.
fn int8_dot(i: u32, h: u32, codes: vec4<u32>, factor: vec2<f32>) -> f32 {
  let w = weight_factors(i, h);
  let product = w.x * factor.x * f32(int8_sum(weight_codes(i, h), codes));
  return select(product, product + w.y * factor.y, WEIGHT_OFFSET);
}

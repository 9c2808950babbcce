// no_input: for kernels that read weights and never call weight_dot, which must compile all the same

fn input_quad(quad: u32) -> vec4<f32> {
  return vec4<f32>();
}

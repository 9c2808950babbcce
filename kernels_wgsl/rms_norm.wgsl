// rms_norm: y[r] = x[r] / sqrt(mean(x[r]^2) + EPS) * weight
// binding 0 x      read array<vec4<f32>> [rows][COLS / 4]
// binding 1 weight read array<vec4<f32>> [COLS / 4]
// grid    1, rows
// uses    reduce half
// why     One workgroup a row: rows are short and many where this is used (prefill).

override COLS: u32;
override EPS: f32;

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> weight: array<vec4<f32>>;

alias Reduced = f32;

const WG = 64u;

fn scaled_quad(first: u32, quad: u32, scale: f32) -> vec4<f32> {
  if (quad >= COLS / 4u) {
    return vec4<f32>();
  }
  return x[first + quad] * scale * weight[quad];
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, lane: Lane) {
  let first = group.y * (COLS / 4u);
  var sum = 0.0;
  for (var quad = lane.t; quad < COLS / 4u; quad += WG) {
    let value = x[first + quad];
    sum += dot(value, value);
  }
  let scale = inverseSqrt(reduce_add(sum, lane) / f32(COLS) + EPS);
  for (var half = lane.t; half < (COLS + 15u) / 16u; half += WG) {
    let quad = 4u * half;
    put_half(group.y, half, mat4x4<f32>(
      scaled_quad(first, quad, scale), scaled_quad(first, quad + 1u, scale),
      scaled_quad(first, quad + 2u, scale), scaled_quad(first, quad + 3u, scale),
    ));
  }
}

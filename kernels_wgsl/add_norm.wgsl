// add_norm: y[r] += x[r] / sqrt(mean(x[r]^2) + EPS) * weight
// binding 0 x      read       array<vec4<f32>> [rows][COLS / 4]
// binding 1 weight read       array<vec4<f32>> [COLS / 4]
// binding 2 y      read_write array<vec4<f32>> [rows][COLS / 4]
// grid    1, rows
// uses    reduce
// why     Where a block's output is normalised before it joins the residual stream, the product before it cannot add it.

override COLS: u32;
override EPS: f32;

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;

alias Reduced = f32;

const WG = 64u;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, lane: Lane) {
  let first = group.y * (COLS / 4u);
  var sum = 0.0;
  for (var quad = lane.t; quad < COLS / 4u; quad += WG) {
    let value = x[first + quad];
    sum += dot(value, value);
  }
  let scale = inverseSqrt(reduce_add(sum, lane) / f32(COLS) + EPS);
  for (var quad = lane.t; quad < COLS / 4u; quad += WG) {
    y[first + quad] += x[first + quad] * scale * weight[quad];
  }
}

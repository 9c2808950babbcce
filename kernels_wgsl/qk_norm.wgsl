// qk_norm: spans of q and of k, in place: x / sqrt(mean(x^2) + EPS) * weight
// binding 0 qkv      read_write array<vec4<f32>> [rows][STRIDE / 4]
// binding 1 q_weight read       array<vec4<f32>> [Q_SPAN / 4]
// binding 2 k_weight read       array<vec4<f32>> [K_SPAN / 4]
// grid    Q_SPANS and the spans of k, rows
// uses    reduce
// why     A span is a head, or all heads together: models do either. Before rotation, which keeps lengths but not the weights' order.

override STRIDE: u32;   // numbers in a row
override Q_SPANS: u32;
override Q_SPAN: u32;   // numbers in a span of q
override K_SPAN: u32;
override EPS: f32;

@group(0) @binding(0) var<storage, read_write> qkv: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> q_weight: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> k_weight: array<vec4<f32>>;

alias Reduced = f32;

const WG = 64u;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, lane: Lane) {
  let is_q = group.x < Q_SPANS;
  let span = select(K_SPAN, Q_SPAN, is_q) / 4u;
  let from_q = group.y * (STRIDE / 4u);
  let first = select(from_q + Q_SPANS * (Q_SPAN / 4u) + (group.x - Q_SPANS) * span, from_q + group.x * span, is_q);
  var sum = 0.0;
  for (var quad = lane.t; quad < span; quad += WG) {
    let value = qkv[first + quad];
    sum += dot(value, value);
  }
  let scale = inverseSqrt(reduce_add(sum, lane) / f32(4u * span) + EPS);
  for (var quad = lane.t; quad < span; quad += WG) {
    if (is_q) {
      qkv[first + quad] *= scale * q_weight[quad];
    } else {
      qkv[first + quad] *= scale * k_weight[quad];
    }
  }
}

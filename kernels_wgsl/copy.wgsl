// copy: y[i] = x[i]
// binding 0 x read       array<vec4<u32>> [SIZE]
// binding 1 y read_write array<vec4<u32>> [SIZE]
// grid    SIZE / 2048
// why     The bench's measure of what the memory gives: every other speed is a fraction of this one.

override SIZE: u32;

@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<u32>>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let first = group.x * 2048u + t;
  for (var i = 0u; i < 8u; i++) {
    let at = first + i * 256u;
    if (at < SIZE) {
      y[at] = x[at];
    }
  }
}

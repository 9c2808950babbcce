// gated packed: the outputs of matvec_glu as 8-bit integers with a scale for 16 of them; PER is 16 or 32
// binding 4 y_codes   read_write array<vec4<u32>> [rows][STRIDE / 16]
// binding 5 y_factors read_write array<vec2<f32>> [rows][STRIDE / 16]
// uses    pack

@group(0) @binding(4) var<storage, read_write> y_codes: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read_write> y_factors: array<vec2<f32>>;

// Holds a barrier: call it in uniform control flow. Reuses the kernel's own `partial`.
fn put(row: u32, n: u32, t: u32, value: f32) {
  if (t < PER) {
    partial[t].x = value;
  }
  workgroupBarrier();
  let half = t * 16u;  // thread t packs the outputs of threads 16t to 16t + 15
  if (half < PER && n - t + half < ROWS) {
    let packed = pack(mat4x4<f32>(
      partial[half].x, partial[half + 1u].x, partial[half + 2u].x, partial[half + 3u].x,
      partial[half + 4u].x, partial[half + 5u].x, partial[half + 6u].x, partial[half + 7u].x,
      partial[half + 8u].x, partial[half + 9u].x, partial[half + 10u].x, partial[half + 11u].x,
      partial[half + 12u].x, partial[half + 13u].x, partial[half + 14u].x, partial[half + 15u].x,
    ));
    let at = (row * STRIDE + OFFSET + n - t + half) / 16u;
    y_codes[at] = packed.codes;
    y_factors[at] = packed.factor;
  }
}

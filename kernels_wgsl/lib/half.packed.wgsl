// half packed: 16 numbers of a row of y, as 8-bit integers with a scale
// binding 4 y_codes   read_write array<vec4<u32>> [rows][COLS / 16]
// binding 5 y_factors read_write array<vec2<f32>> [rows][COLS / 16]
// uses    pack

@group(0) @binding(4) var<storage, read_write> y_codes: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read_write> y_factors: array<vec2<f32>>;

fn put_half(row: u32, half: u32, v: mat4x4<f32>) {
  let packed = pack(v);
  y_codes[row * (COLS / 16u) + half] = packed.codes;
  y_factors[row * (COLS / 16u) + half] = packed.factor;
}

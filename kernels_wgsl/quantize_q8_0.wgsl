// quantize_q8_0: rows of F32, F16 or BF16 -> weight q8_0
// binding 2 data read_write array<vec4<u32>> [tiles of 16 rows][COLS / 32][2][16]
// grid    1, rows of the piece
// uses    quantize import_scale
// why     The largest of each 32 gets 127, as in GGUF's Q8_0: with 8 bits a better scale would gain nothing that is seen.

@group(0) @binding(2) var<storage, read_write> data: array<vec4<u32>>;

fn codes(x: vec4<f32>, d: f32) -> vec4<f32> {
  return clamp(round(x * inverse(d)), vec4<f32>(-127.0), vec4<f32>(127.0));
}

fn words(x: Quads, first: u32, d: f32) -> vec4<u32> {
  return vec4<u32>(
    byte_word(codes(x[first], d)), byte_word(codes(x[first + 1u], d)),
    byte_word(codes(x[first + 2u], d)), byte_word(codes(x[first + 3u], d)),
  );
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, lane: Lane) {
  var sums = vec2<f32>();
  for (var unit = lane.t; unit < unit_count(); unit += WG) {
    let x = load_unit(group.y, unit);
    var most = vec4<f32>();
    for (var p = 0u; p < 8u; p++) {
      most = max(most, abs(x[p]));
    }
    let d = stored(vec2<f32>(max(max(most.x, most.y), max(most.z, most.w)) / 127.0, 0.0)).x;
    for (var p = 0u; p < 8u; p++) {
      let lost = fma(codes(x[p], d), vec4<f32>(d), -x[p]);
      sums.x += dot(lost, lost);
    }
    sums.y += squares(x);
    let i = target_unit(group.y, unit);
    let to = (i / 16u) * 32u + i % 16u;
    put_scale(i / 2u, i, pack2x16float(vec2<f32>(d, 0.0)));
    data[to] = words(x, 0u, d);
    data[to + 16u] = words(x, 4u, d);
  }
  add_errors(group.y, sums, lane);
}

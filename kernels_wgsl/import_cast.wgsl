// import_cast: rows of F32, F16 or BF16 -> weight f16 or f32
// binding 2 data read_write array<u32> [tiles of 16 rows][COLS / 32][8][16][QUAD_WORDS]
// grid    1, rows of the piece
// uses    quantize
// why     Numbers beyond f16's become its largest; padding columns become 0.

override QUAD_WORDS: u32;  // words of four values: 4 in f32, 2 in f16

@group(0) @binding(2) var<storage, read_write> data: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, lane: Lane) {
  var sums = vec2<f32>();
  for (var unit = lane.t; unit < unit_count(); unit += WG) {
    let x = load_unit(group.y, unit);
    let i = target_unit(group.y, unit);
    for (var p = 0u; p < 8u; p++) {
      let to = ((i / 16u) * 128u + p * 16u + i % 16u) * QUAD_WORDS;
      if (QUAD_WORDS == 4u) {
        for (var n = 0u; n < 4u; n++) {
          data[to + n] = bitcast<u32>(x[p][n]);
        }
      } else {
        let low = stored(x[p].xy);
        let high = stored(x[p].zw);
        let lost = x[p] - vec4<f32>(low, high);
        data[to] = pack2x16float(low);
        data[to + 1u] = pack2x16float(high);
        sums.x += dot(lost, lost);
      }
    }
    sums.y += squares(x);
  }
  add_errors(group.y, sums, lane);
}

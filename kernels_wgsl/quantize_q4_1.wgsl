// quantize_q4_1: rows of F32, F16 or BF16 -> weight q4_1, scale and minimum of each 32 by least squares
// binding 2 data   read_write array<vec4<u32>> [tiles of 16 rows][COLS / 32][16]
// binding 3 scales read_write array<u32>       [tiles of 16 rows][COLS / 32][16] pairs (d, m) of f16
// grid    1, rows of the piece
// uses    quantize import_codes
// why     Five ranges give integers, and twice those give the scale and minimum that suit them best. The best of all, and of the plain range, is kept.

@group(0) @binding(2) var<storage, read_write> data: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> scales: array<u32>;

struct Fit {
  scale: vec2<f32>,  // d, m
  error: f32,        // sum of squares
}

fn codes(x: vec4<f32>, scale: vec2<f32>) -> vec4<f32> {
  return clamp(round((x - scale.y) * inverse(scale.x)), vec4<f32>(), vec4<f32>(15.0));
}

fn error_of(x: Quads, quads: u32, scale: vec2<f32>) -> f32 {
  var sum = 0.0;
  for (var p = 0u; p < quads; p++) {
    let lost = fma(codes(x[p], scale), vec4<f32>(scale.x), scale.y - x[p]);
    sum += dot(lost, lost);
  }
  return sum;
}

// The d and m that suit the integers of `scale` best.
fn refit(x: Quads, quads: u32, scale: vec2<f32>) -> vec2<f32> {
  let one = vec4<f32>(1.0);
  var q1 = 0.0;
  var q2 = 0.0;
  var x1 = 0.0;
  var qx = 0.0;
  for (var p = 0u; p < quads; p++) {
    let q = codes(x[p], scale);
    q1 += dot(q, one);
    q2 += dot(q, q);
    x1 += dot(x[p], one);
    qx += dot(q, x[p]);
  }
  let n = 4.0 * f32(quads);
  let determinant = n * q2 - q1 * q1;
  if (determinant <= 0.0) {
    return stored(vec2<f32>(0.0, x1 / n));
  }
  return stored(vec2<f32>(n * qx - q1 * x1, q2 * x1 - q1 * qx) / determinant);
}

fn fit(x: Quads, quads: u32) -> Fit {
  var least = x[0];
  var most = x[0];
  for (var p = 1u; p < quads; p++) {
    least = min(least, x[p]);
    most = max(most, x[p]);
  }
  let low = min(min(least.x, least.y), min(least.z, least.w));
  let range = max(max(most.x, most.y), max(most.z, most.w)) - low;
  let plain = stored(vec2<f32>(range / 15.0, low));
  var best = Fit(plain, error_of(x, quads, plain));
  for (var half = 28u; half <= 32u; half++) {
    var scale = vec2<f32>(range / (0.5 * f32(half)), low);
    for (var again = 0u; again < 2u; again++) {
      scale = refit(x, quads, scale);
      let error = error_of(x, quads, scale);
      if (error < best.error) {
        best = Fit(scale, error);
      }
    }
  }
  return best;
}

fn words(x: Quads, first: u32, scale: vec2<f32>) -> vec4<u32> {
  return vec4<u32>(
    byte_word(codes(x[first], scale)), byte_word(codes(x[first + 1u], scale)),
    byte_word(codes(x[first + 2u], scale)), byte_word(codes(x[first + 3u], scale)),
  );
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, lane: Lane) {
  var sums = vec2<f32>();
  for (var unit = lane.t; unit < unit_count(); unit += WG) {
    let x = load_unit(group.y, unit);
    let best = fit(x, quad_count(unit));
    let i = target_unit(group.y, unit);
    scales[i] = pack2x16float(best.scale);
    data[i] = nibbles(words(x, 0u, best.scale), words(x, 4u, best.scale));
    sums += vec2<f32>(best.error, squares(x));
  }
  add_errors(group.y, sums, lane);
}

// quantize_q4_0: rows of F32, F16 or BF16 -> weight q4_0, the scale of each 32 by least squares
// binding 2 data read_write array<vec4<u32>> [tiles of 16 rows][COLS / 32][16]
// grid    1, rows of the piece
// uses    quantize import_scale import_codes
// why     The largest number gets -8, or one from -7 to -9 that is cut off; the scale that suits those integers best is kept if it is better.

@group(0) @binding(2) var<storage, read_write> data: array<vec4<u32>>;

struct Fit {
  d: f32,
  error: f32,  // sum of squares
}

// Integers from -8 to 7.
fn codes(x: vec4<f32>, d: f32) -> vec4<f32> {
  return clamp(round(x * inverse(d)), vec4<f32>(-8.0), vec4<f32>(7.0));
}

fn error_of(x: Quads, d: f32) -> f32 {
  var sum = 0.0;
  for (var p = 0u; p < 8u; p++) {
    let lost = fma(codes(x[p], d), vec4<f32>(d), -x[p]);
    sum += dot(lost, lost);
  }
  return sum;
}

// The scale that suits the integers of `d` best.
fn refit(x: Quads, d: f32) -> f32 {
  var q2 = 0.0;
  var qx = 0.0;
  for (var p = 0u; p < 8u; p++) {
    let q = codes(x[p], d);
    q2 += dot(q, q);
    qx += dot(q, x[p]);
  }
  return stored(vec2<f32>(qx * inverse(q2), 0.0)).x;
}

fn fit(x: Quads) -> Fit {
  var least = vec4<f32>();
  var most = vec4<f32>();
  for (var p = 0u; p < 8u; p++) {
    least = min(least, x[p]);
    most = max(most, x[p]);
  }
  let low = min(min(least.x, least.y), min(least.z, least.w));
  let high = max(max(most.x, most.y), max(most.z, most.w));
  let largest = select(low, high, high > -low);
  let plain = stored(vec2<f32>(largest / -8.0, 0.0)).x;
  var best = Fit(plain, error_of(x, plain));
  for (var half = 14u; half <= 18u; half++) {
    let d = refit(x, largest / (-0.5 * f32(half)));
    let error = error_of(x, d);
    if (error < best.error) {
      best = Fit(d, error);
    }
  }
  return best;
}

fn words(x: Quads, first: u32, d: f32) -> vec4<u32> {
  return vec4<u32>(
    byte_word(codes(x[first], d) + 8.0), byte_word(codes(x[first + 1u], d) + 8.0),
    byte_word(codes(x[first + 2u], d) + 8.0), byte_word(codes(x[first + 3u], d) + 8.0),
  );
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, lane: Lane) {
  var sums = vec2<f32>();
  for (var unit = lane.t; unit < unit_count(); unit += WG) {
    let x = load_unit(group.y, unit);
    let best = fit(x);
    let i = target_unit(group.y, unit);
    put_scale(i / 2u, i, pack2x16float(vec2<f32>(best.d, 0.0)));
    data[i] = nibbles(words(x, 0u, best.d), words(x, 4u, best.d));
    sums += vec2<f32>(best.error, squares(x));
  }
  add_errors(group.y, sums, lane);
}

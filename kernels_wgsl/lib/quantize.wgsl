// quantize: a row of numbers in units of 32 columns, and what rounding costs the tensor
// binding 4 errors read_write array<vec2<f32>> [rows of a piece] of all pieces: squares of what was lost, of what was there
// uses    import element reduce
// why     A workgroup has a row, and so a place in `errors`, to itself: there are no atomics, and a sum is the same every time.

@group(0) @binding(4) var<storage, read_write> errors: array<vec2<f32>>;

alias Reduced = vec2<f32>;
alias Quads = array<vec4<f32>, 8>;

const WG = 64u;

fn unit_count() -> u32 {
  return (params.cols + 31u) / 32u;
}

// Quads of the unit that the row has: 8, or fewer in its last one.
fn quad_count(unit: u32) -> u32 {
  return min(8u, params.cols / 4u - 8u * unit);
}

// Columns that the row does not have are 0.
fn load_unit(r: u32, unit: u32) -> Quads {
  var values = Quads();
  let first = r * params.cols + 32u * unit;
  for (var p = 0u; p < quad_count(unit); p++) {
    let at = first + 4u * p;
    values[p] = vec4<f32>(element(at), element(at + 1u), element(at + 2u), element(at + 3u));
  }
  return values;
}

fn squares(values: Quads) -> f32 {
  var sum = 0.0;
  for (var p = 0u; p < 8u; p++) {
    sum += dot(values[p], values[p]);
  }
  return sum;
}

// Two numbers as f16 holds them: finite, too.
fn stored(pair: vec2<f32>) -> vec2<f32> {
  return unpack2x16float(pack2x16float(clamp(pair, vec2<f32>(-65504.0), vec2<f32>(65504.0))));
}

fn inverse(d: f32) -> f32 {
  return select(1.0 / d, 0.0, d == 0.0);
}

// Four integers from -128 to 255, one a byte.
fn byte_word(q: vec4<f32>) -> u32 {
  let bytes = (vec4<u32>(vec4<i32>(q)) & vec4<u32>(0xFFu)) << vec4<u32>(0u, 8u, 16u, 24u);
  return bytes.x | bytes.y | bytes.z | bytes.w;
}

// Adds a row's sums, of all threads, to the tensor's. Holds barriers: call it in uniform control flow.
fn add_errors(r: u32, mine: vec2<f32>, lane: Lane) {
  let sums = reduce_add(mine, lane);
  if (lane.t == 0u) {
    errors[params.errors + r] += sums;
  }
}

// matmul_int8: as matmul, of packed rows: y[r, OFFSET + n] = sum_k W[n, k] x[r, k] + bias[OFFSET + n], plus y where ADD
// binding 2 x_factors read       array<vec2<f32>> [rows up to 64][COLS / 16]
// binding 3 x_codes   read       array<vec4<u32>> [rows up to 64][COLS / 16]
// binding 4 y         read_write array<f32>       [rows up to 64][STRIDE]
// grid    ROWS / 64, rows / 64, splits
// uses    weight pack no_input block outer
// why     Approximate. dot4I8Packed does four products: twice to three times as fast as floats. 64 x 64 outputs a workgroup, 8 x 4 a thread.

override COLS: u32;
override ROWS: u32;        // rows of this weight
override STRIDE: u32;      // numbers in a row of y
override OFFSET: u32 = 0;  // where this weight's rows begin in a row of y
override ADD: bool = false;

@group(0) @binding(2) var<storage, read> x_factors: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read> x_codes: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

// One unit of 32 columns: codes [8 words][64 rows / 4] and, a half unit, factors [2][64 rows / 4] as bits of floats.
var<workgroup> tile: array<vec4<u32>, 384>;

const X_CODES = 0u;
const W_CODES = 128u;
const X_SCALE = 256u;
const X_SUM = 288u;
const W_SCALE = 320u;
const W_OFFSET = 352u;

// Integers from here on are floats when their bits are read so: no conversion is needed.
const ZERO = vec4<i32>(0x4B400000);

// Products of four rows of x and four of the weight.
struct Block {
  a: vec4<i32>,
  b: vec4<i32>,
  c: vec4<i32>,
  d: vec4<i32>,
}

fn dots(x: u32, w: vec4<u32>) -> vec4<i32> {
  return vec4<i32>(dot4I8Packed(x, w.x), dot4I8Packed(x, w.y), dot4I8Packed(x, w.z), dot4I8Packed(x, w.w));
}

fn add_dots(sum: Block, x: vec4<u32>, w: vec4<u32>) -> Block {
  return Block(sum.a + dots(x.x, w), sum.b + dots(x.y, w), sum.c + dots(x.z, w), sum.d + dots(x.w, w));
}

// 16 columns, written out: a compiler that guards its loops does not unroll them. x, w: where their codes begin.
fn half_dots(x: u32, w: u32) -> Block {
  let a = add_dots(Block(ZERO, ZERO, ZERO, ZERO), tile[x], tile[w]);
  let b = add_dots(a, tile[x + 16u], tile[w + 16u]);
  let c = add_dots(b, tile[x + 32u], tile[w + 32u]);
  return add_dots(c, tile[x + 48u], tile[w + 48u]);
}

fn real(v: vec4<i32>) -> vec4<f32> {
  return bitcast<vec4<f32>>(v) - vec4<f32>(12582912.0);
}

fn add_scaled(total: mat4x4<f32>, sum: Block, x: vec4<f32>, w: vec4<f32>) -> mat4x4<f32> {
  return mat4x4<f32>(
    total[0] + x.x * w * real(sum.a), total[1] + x.y * w * real(sum.b),
    total[2] + x.z * w * real(sum.c), total[3] + x.w * w * real(sum.d),
  );
}

// Half h of the unit: four rows of x and four of the weight.
fn add_half(total: mat4x4<f32>, h: u32, x: u32, w: u32) -> mat4x4<f32> {
  let sum = half_dots(X_CODES + 64u * h + x, W_CODES + 64u * h + w);
  let added = add_scaled(total, sum, factors(X_SCALE + 16u * h + x), factors(W_SCALE + 16u * h + w));
  if (WEIGHT_OFFSET) {
    return added + outer(factors(X_SUM + 16u * h + x), factors(W_OFFSET + 16u * h + w));
  }
  return added;
}

fn factors(at: u32) -> vec4<f32> {
  return bitcast<vec4<f32>>(tile[at]);
}

fn put_codes(at: u32, a: vec4<u32>, b: vec4<u32>, c: vec4<u32>, d: vec4<u32>) {
  tile[at] = vec4<u32>(a.x, b.x, c.x, d.x);
  tile[at + 16u] = vec4<u32>(a.y, b.y, c.y, d.y);
  tile[at + 32u] = vec4<u32>(a.z, b.z, c.z, d.z);
  tile[at + 48u] = vec4<u32>(a.w, b.w, c.w, d.w);
}

// Each quarter of the threads brings one thing: codes and factors of x, codes and factors of the weight.
fn load_tile(group: vec3<u32>, t: u32, unit: u32) {
  let four = t % 16u;  // four rows
  let h = (t / 16u) % 2u;
  let x = (group.y * 64u + four * 4u) * (COLS / 16u) + 2u * unit + h;
  let n = min(group.x * 64u + four * 4u, (ROWS - 1u) / 4u * 4u);
  let w = ((n / 16u) * (COLS / 32u) + unit) * 16u + n % 16u;
  let next = COLS / 16u;
  if (t < 32u) {
    put_codes(X_CODES + 64u * h + four, x_codes[x], x_codes[x + next], x_codes[x + 2u * next], x_codes[x + 3u * next]);
  } else if (t < 64u) {
    put_codes(
      W_CODES + 64u * h + four,
      weight_codes(w, h), weight_codes(w + 1u, h), weight_codes(w + 2u, h), weight_codes(w + 3u, h),
    );
  } else if (t < 96u) {
    let a = x_factors[x];
    let b = x_factors[x + next];
    let c = x_factors[x + 2u * next];
    let d = x_factors[x + 3u * next];
    tile[X_SCALE + 16u * h + four] = bitcast<vec4<u32>>(vec4<f32>(a.x, b.x, c.x, d.x));
    tile[X_SUM + 16u * h + four] = bitcast<vec4<u32>>(vec4<f32>(a.y, b.y, c.y, d.y));
  } else {
    let a = weight_factors(w, h);
    let b = weight_factors(w + 1u, h);
    let c = weight_factors(w + 2u, h);
    let d = weight_factors(w + 3u, h);
    tile[W_SCALE + 16u * h + four] = bitcast<vec4<u32>>(vec4<f32>(a.x, b.x, c.x, d.x));
    tile[W_OFFSET + 16u * h + four] = bitcast<vec4<u32>>(vec4<f32>(a.y, b.y, c.y, d.y));
  }
}

@compute @workgroup_size(128)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) t: u32,
) {
  let tx = t % 16u;
  let ty = t / 16u;
  var top = mat4x4<f32>();     // rows 4 ty of the tile and on
  var bottom = mat4x4<f32>();  // and 32 rows below
  let units = split_units(COLS / 32u, group.z, groups.z);
  for (var unit = units.x; unit < units.y; unit++) {
    workgroupBarrier();
    load_tile(group, t, unit);
    workgroupBarrier();
    top = add_half(top, 0u, ty, tx);
    top = add_half(top, 1u, ty, tx);
    bottom = add_half(bottom, 0u, ty + 8u, tx);
    bottom = add_half(bottom, 1u, ty + 8u, tx);
  }
  let row = group.y * 64u + ty * 4u;
  let n = group.x * 64u + tx * 4u;
  put_block(row, n, top, group, groups);
  put_block(row + 32u, n, bottom, group, groups);
}

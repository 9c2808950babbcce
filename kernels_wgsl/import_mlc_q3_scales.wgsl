// import_mlc_q3_scales: the scales of MLC's 3 bits, one a group of 40 columns -> those of weight q3
// binding 3 scales read_write array<u32> [tiles of 16 rows][COLS / 32][16] pairs of f16
// grid    COLS / 2048, rows of the piece
// uses    import_mlc element
// why     A unit of 32 columns gets the scales of the groups that its first and its last column are in.

@group(0) @binding(3) var<storage, read_write> scales: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (outside(id)) {
    return;
  }
  let groups = (params.cols + 39u) / 40u;
  let first = id.y * groups;
  let pair = vec2<f32>(
    element(first + (32u * id.x) / 40u), element(first + min((32u * id.x + 31u) / 40u, groups - 1u)),
  );
  scales[target_unit(id.y, id.x)] = pack2x16float(clamp(pair, vec2<f32>(-65504.0), vec2<f32>(65504.0)));
}

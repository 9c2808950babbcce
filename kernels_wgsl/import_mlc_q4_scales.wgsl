// import_mlc_q4_scales: the scales of MLC's 4 bits, one a group of 32 columns -> those of weight q4_0
// grid    COLS / 2048, rows of the piece
// uses    import_mlc import_scale element
// why     MLC keeps them apart from the integers, perhaps in another file. Numbers that f16 does not have are rounded.

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (outside(id)) {
    return;
  }
  let i = target_unit(id.y, id.x);
  let d = clamp(element(id.y * ((params.cols + 31u) / 32u) + id.x), -65504.0, 65504.0);
  put_scale(i / 2u, i, pack2x16float(vec2<f32>(d, 0.0)));
}

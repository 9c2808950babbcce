// import_mlc: what matrices whose scales come after them, as MLC has them, have in common
// uses    import

// Rows are in whole groups, so the last unit may reach beyond the columns.
fn outside(id: vec3<u32>) -> bool {
  return id.x >= (params.cols + 31u) / 32u || id.y >= params.rows;
}

// step: what changes from step to step, one record a row

struct Row {
  token: u32,
  position: u32,
  sequence: u32,  // row of the page table
  emitted: u32,   // tokens written to the result so far
}

struct Step {
  rows: u32,  // records of this step that mean something
  @align(16) row: array<Row>,
}

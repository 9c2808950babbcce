// pages: where a position of a sequence lies in the cache
// binding 2 pages read array<u32> [sequences][MAX_PAGES] number of the page of 32 positions
// uses    kv
// why     Threads that each take a position read K's units side by side; threads that each take a unit read V's.

override KV_HEADS: u32;
override HEAD_DIM: u32;
override MAX_PAGES: u32;

@group(0) @binding(2) var<storage, read> pages: array<u32>;

// Index of the first unit of one head's K or V in the page of `position`.
fn kv_page(sequence: u32, position: u32, head: u32) -> u32 {
  let page = pages[sequence * MAX_PAGES + position / 32u];
  return (page * KV_HEADS + head) * 32u * (HEAD_DIM / 8u + KV_SCALES);
}

// Where in it a unit of the page's position p lies, and its scales; `kv_quarter` says which of them is the unit's.
fn k_at(p: u32, unit: u32) -> u32 {
  return unit * 32u + p;
}

fn v_at(p: u32, unit: u32) -> u32 {
  return p * (HEAD_DIM / 8u) + unit;
}

fn scales_at(p: u32) -> u32 {
  return 4u * HEAD_DIM + p;
}

fn kv_quarter(unit: u32) -> u32 {
  return 4u * unit / (HEAD_DIM / 8u);
}

// pages: where a position of a sequence lies in the cache
// binding 2 pages read array<u32> [sequences][MAX_PAGES] number of the page of 32 positions

override KV_HEADS: u32;
override HEAD_DIM: u32;
override MAX_PAGES: u32;

@group(0) @binding(2) var<storage, read> pages: array<u32>;

// Index of the first quad of one head's K or V at `position`.
fn kv_index(sequence: u32, position: u32, head: u32) -> u32 {
  let page = pages[sequence * MAX_PAGES + position / 32u];
  return ((page * KV_HEADS + head) * 32u + position % 32u) * (HEAD_DIM / 4u);
}

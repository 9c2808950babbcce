// import_scale: two rows share a word of scales
// binding 3 scales read_write array<atomic<u32>> [tiles of 16 rows][COLS / 32][8] pairs of f16, zero before

@group(0) @binding(3) var<storage, read_write> scales: array<atomic<u32>>;

fn put_scale(i: u32, half: u32) {
  atomicOr(&scales[i / 2u], half << (16u * (i & 1u)));
}

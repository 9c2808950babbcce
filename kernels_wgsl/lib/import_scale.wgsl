// import_scale: two rows share a word of scales
// binding 3 scales read_write array<atomic<u32>> words as the weight has them, zero before

@group(0) @binding(3) var<storage, read_write> scales: array<atomic<u32>>;

// Unit i's half of the word: even rows have the lower one.
fn put_scale(word: u32, i: u32, half: u32) {
  atomicOr(&scales[word], half << (16u * (i & 1u)));
}

// fill: data[i] = WORD, or hashed bits of i where RANDOM
// binding 0 params read       array<u32> [first row, rows] of 1024 words
// binding 1 data   read_write array<u32> [words]
// grid    16, rows of the piece
// why     Makes weights of any size on the GPU for the bench: nothing is read or uploaded.

override WORD: u32 = 0;
override RANDOM: bool = false;

@group(0) @binding(0) var<storage, read> params: array<u32>;
@group(0) @binding(1) var<storage, read_write> data: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let i = (params[0] + id.y) * 1024u + id.x;
  if (id.y >= params[1] || i >= arrayLength(&data)) {
    return;
  }
  // PCG hash (Jarzynski and Olano 2020).
  var bits = i * 747796405u + 2891336453u;
  bits = ((bits >> ((bits >> 28u) + 4u)) ^ bits) * 277803737u;
  data[i] = select(WORD, (bits >> 22u) ^ bits, RANDOM);
}

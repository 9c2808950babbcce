// next_token: takes the best candidate of each row as its next token and moves the row one position on
// binding 0 candidates read       array<vec2<u32>> [rows][TILES] bits of the logit, token
// binding 1 step       read_write Step             one record a row
// binding 2 result     read_write array<u32>       [RING][rows] tokens, the newest at emitted % RING
// grid    1, rows
// uses    step best
// why     The next step finds its token on the GPU: the host may run several steps ahead.

override TILES: u32;
override RING: u32;

@group(0) @binding(0) var<storage, read> candidates: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read_write> step: Step;
@group(0) @binding(2) var<storage, read_write> result: array<u32>;

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) t: u32,
) {
  var mine = Candidate(-3.4e38, 0xFFFFFFFFu);
  for (var i = t; i < TILES; i += 256u) {
    let candidate = candidates[group.y * TILES + i];
    mine = better(mine, Candidate(bitcast<f32>(candidate.x), candidate.y));
  }
  let winner = best(mine, t);
  if (t == 0u) {
    let row = step.row[group.y];
    result[(row.emitted % RING) * groups.y + group.y] = winner.token;
    step.row[group.y] = Row(winner.token, row.position + 1u, row.sequence, row.emitted + 1u);
  }
}

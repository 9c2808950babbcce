// gather: the best tokens of each row, as many whole bins of the histogram as hold at most 1024
// binding 0 step       read       Step              one record a row
// binding 1 sampling   read       array<Sampling>   one a sequence
// binding 2 logits     read       array<f32>        [rows][COLS] scores
// binding 3 histogram  read       array<u32>        [rows][BINS]
// binding 4 candidates read_write array<Candidates> one a row
// grid    COLS / 4096, rows
// uses    step sampling scan
// why     Every workgroup finds the cutoff again, which is cheaper than a dispatch that finds it for all; so they are few.

override COLS: u32;

@group(0) @binding(0) var<storage, read> step: Step;
@group(0) @binding(1) var<storage, read> sampling: array<Sampling>;
@group(0) @binding(2) var<storage, read> logits: array<f32>;
@group(0) @binding(3) var<storage, read> histogram: array<u32>;
@group(0) @binding(4) var<storage, read_write> candidates: array<Candidates>;

const SHARE = BINS / 256u;  // bins of a thread; thread 0 has the highest

var<workgroup> cutoff: u32;

fn find_cutoff(row: u32, t: u32) {
  let top = BINS - t * SHARE;
  var mine = 0u;
  for (var i = 1u; i <= SHARE; i++) {
    mine += histogram[row * BINS + top - i];
  }
  let above = u32(scan(f32(mine), t)) - mine;
  // One thread has the bin where they become too many; the last one where they never do.
  if (above <= CANDIDATES && (above + mine > CANDIDATES || t == 255u)) {
    var bin = top;
    var held = above;
    for (var i = 1u; i <= SHARE; i++) {
      held += histogram[row * BINS + top - i];
      bin -= select(0u, 1u, held <= CANDIDATES);
    }
    cutoff = bin;
  }
  workgroupBarrier();
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let how = sampling[step.row[group.y].sequence];
  if ((how.flags & FILTERED) == 0u) {
    return;
  }
  find_cutoff(group.y, t);
  for (var i = 0u; i < 16u; i++) {
    let n = group.x * 4096u + i * 256u + t;
    if (n < COLS) {
      let s = logits[group.y * COLS + n];
      if (s > LOWEST && bin_of(s) >= cutoff) {
        let at = atomicAdd(&candidates[group.y].count, 1u);
        candidates[group.y].item[at] = vec2<u32>(bitcast<u32>(s), n);
      }
    }
  }
  if (group.x == 0u && t == 0u) {
    candidates[group.y].cutoff = cutoff;
  }
}

// score_tile: scores from logits, bias and penalties; of each tile of 1024 its tally, of all scores a histogram
// binding 0 step      read       Step               one record a row
// binding 1 sampling  read       array<Sampling>    one a sequence
// binding 2 bias      read       array<f32>         [sequences][COLS]
// binding 3 counts    read       array<u32>         [sequences][COLS] times in the answer; bit 31: in the prompt
// binding 4 logits    read_write array<f32>         [rows][COLS] logits, then scores
// binding 5 histogram read_write array<atomic<u32>> [rows][BINS] counted where tokens are filtered
// binding 6 tiles     read_write array<Tally>       [rows][TILES]
// grid    COLS / 1024, rows
// uses    step sampling noise tally
// why     One pass over the logits is all that sampling without filters needs (Gumbel-max), and filters need no sort of the vocabulary.

override COLS: u32;
override TILES: u32;

@group(0) @binding(0) var<storage, read> step: Step;
@group(0) @binding(1) var<storage, read> sampling: array<Sampling>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> counts: array<u32>;
@group(0) @binding(4) var<storage, read_write> logits: array<f32>;
@group(0) @binding(5) var<storage, read_write> histogram: array<atomic<u32>>;
@group(0) @binding(6) var<storage, read_write> tiles: array<Tally>;

// Repetition: Keskar et al. 2019, over prompt and answer. Frequency and presence: OpenAI's, over the answer.
fn score(logit: f32, at: u32, how: Sampling) -> f32 {
  var s = logit;
  if ((how.flags & BIASED) != 0u) {
    s += bias[at];
  }
  if ((how.flags & PENALISED) != 0u && counts[at] != 0u) {
    let times = counts[at] & ~IN_PROMPT;
    s = select(s * how.repetition, s / how.repetition, s > 0.0);
    s -= f32(times) * how.frequency + select(0.0, how.presence, times > 0u);
  }
  // By its bits: compilers may assume that there are no infinities and NaNs.
  return select(max(s, LOWEST), LOWEST, (bitcast<u32>(s) & 0x7F800000u) == 0x7F800000u);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let row = step.row[group.y];
  let how = sampling[row.sequence];
  var mine = no_tally();
  for (var i = 0u; i < 4u; i++) {
    let n = group.x * 1024u + i * 256u + t;
    if (n < COLS) {
      let s = score(logits[group.y * COLS + n], row.sequence * COLS + n, how);
      logits[group.y * COLS + n] = s;
      if (s > LOWEST) {
        let noisy = s + how.temperature * noise(how.seed, row.emitted, n);
        mine = both(mine, Tally(s, 1.0, noisy, n), how.inverse);
        if ((how.flags & FILTERED) != 0u) {
          atomicAdd(&histogram[group.y * BINS + bin_of(s)], 1u);
        }
      }
    }
  }
  let all = tally(mine, how.inverse, t);
  if (t == 0u) {
    tiles[group.y * TILES + group.x] = all;
  }
}

// sample: each row's next token by temperature, top_k, top_p, min_p and the seed's noise; moves the row one position on
// binding 0 tiles      read       array<Tally>       [rows][TILES]
// binding 1 candidates read_write array<Candidates>  one a row; left empty
// binding 2 histogram  read_write array<atomic<u32>> [rows][BINS] left empty
// binding 3 sampling   read_write array<Sampling>    one a sequence
// binding 4 counts     read_write array<u32>         [sequences][COLS] times in the answer; bit 31: in the prompt
// binding 5 step       read_write Step               one record a row
// binding 6 result     read_write array<u32>         [RING][rows] tokens, the newest at emitted % RING
// grid    1, rows
// uses    step sampling noise tally scan
// why     Candidates are sorted, so the order in which they were gathered does not matter: one seed, one answer.

override COLS: u32;
override TILES: u32;
override RING: u32;

@group(0) @binding(0) var<storage, read> tiles: array<Tally>;
@group(0) @binding(1) var<storage, read_write> candidates: array<Candidates>;
@group(0) @binding(2) var<storage, read_write> histogram: array<atomic<u32>>;
@group(0) @binding(3) var<storage, read_write> sampling: array<Sampling>;
@group(0) @binding(4) var<storage, read_write> counts: array<u32>;
@group(0) @binding(5) var<storage, read_write> step: Step;
@group(0) @binding(6) var<storage, read_write> result: array<u32>;

var<workgroup> sorted: array<vec2<u32>, CANDIDATES>;  // bits of the score, token
var<workgroup> held: u32;

fn score_of(i: u32) -> f32 {
  return bitcast<f32>(sorted[i].x);
}

// Loads the row's candidates, and what fills them up to a power of two. Returns how many they are.
fn load(row: u32, t: u32) -> u32 {
  if (t == 0u) {
    held = atomicLoad(&candidates[row].count);
  }
  let count = workgroupUniformLoad(&held);
  for (var i = t; i < CANDIDATES; i += 256u) {
    sorted[i] = vec2<u32>(bitcast<u32>(f32(LOWEST)), NONE);
    if (i < count) {
      sorted[i] = candidates[row].item[i];
    }
  }
  workgroupBarrier();
  return count;
}

fn precedes(a: vec2<u32>, b: vec2<u32>) -> bool {
  let x = bitcast<f32>(a.x);
  let y = bitcast<f32>(b.x);
  return x > y || (x == y && a.y < b.y);
}

// Bitonic (Batcher 1968): the largest score first, of equals the lowest token.
fn sort(count: u32, t: u32) {
  var size = 1u;
  for (; size < count; size *= 2u) {}
  for (var span = 2u; span <= size; span *= 2u) {
    for (var gap = span / 2u; gap > 0u; gap /= 2u) {
      for (var i = t; i < size / 2u; i += 256u) {
        let low = 2u * i - i % gap;
        let a = sorted[low];
        let b = sorted[low + gap];
        if (precedes(b, a) == ((low & span) == 0u)) {
          sorted[low] = b;
          sorted[low + gap] = a;
        }
      }
      workgroupBarrier();
    }
  }
}

// Whether the filters leave none but candidates. whole: what top_p is a share of.
fn closed(count: u32, cutoff: u32, whole: f32, how: Sampling) -> bool {
  if (cutoff == 0u || count == 0u) {
    return cutoff == 0u;
  }
  if (how.top_k != 0u) {
    return how.top_k <= count;
  }
  let least = exp((score_of(count - 1u) - score_of(0u)) * how.inverse);
  return least < how.min_p || sums[255] >= how.top_p * whole;
}

// The best candidate that the filters leave, with noise. NONE where others than these might be left and be better.
// all: the tally of the whole vocabulary.
fn choose(count: u32, cutoff: u32, how: Sampling, place: u32, all: Tally, t: u32) -> u32 {
  let limit = select(min(how.top_k, count), count, how.top_k == 0u);
  var weight = vec4<f32>();
  for (var j = 0u; j < 4u; j++) {
    if (4u * t + j < limit) {
      weight[j] = exp((score_of(4u * t + j) - score_of(0u)) * how.inverse);
    }
  }
  let own = weight.x + weight.y + weight.z + weight.w;
  var before = scan(own, t) - own;
  let whole = select(sums[255], all.sum, how.top_k == 0u);
  var mine = no_tally();
  for (var j = 0u; j < 4u; j++) {
    let i = 4u * t + j;
    if (i < limit && (i == 0u || (before < how.top_p * whole && weight[j] >= how.min_p))) {
      let noisy = score_of(i) + how.temperature * noise(how.seed, place, sorted[i].y);
      mine = both(mine, Tally(LOWEST, 0.0, noisy, sorted[i].y), how.inverse);
    }
    before += weight[j];
  }
  let best = tally(mine, how.inverse, t).token;
  // The best of all tokens is the best of those that are left, if it is one of them.
  return select(HOST, best, best == all.token || closed(count, cutoff, whole, how));
}

fn clear(row: u32, t: u32) {
  for (var i = t; i < BINS; i += 256u) {
    atomicStore(&histogram[row * BINS + i], 0u);
  }
  if (t == 0u) {
    atomicStore(&candidates[row].count, 0u);
  }
}

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) t: u32,
) {
  let row = step.row[group.y];
  let how = sampling[row.sequence];
  var mine = no_tally();
  for (var i = t; i < TILES; i += 256u) {
    mine = both(mine, tiles[group.y * TILES + i], how.inverse);
  }
  let all = tally(mine, how.inverse, t);
  let count = load(group.y, t);
  sort(count, t);
  let chosen = choose(count, candidates[group.y].cutoff, how, row.emitted, all, t);
  clear(group.y, t);
  if (t != 0u || how.waits != 0u) {
    return;
  }
  let token = select(all.token, chosen, (how.flags & FILTERED) != 0u);
  result[(row.emitted % RING) * groups.y + group.y] = token;
  if (token == HOST) {
    sampling[row.sequence].waits = 1u;
    return;
  }
  step.row[group.y] = Row(token, row.position + 1u, row.sequence, row.emitted + 1u);
  if ((how.flags & PENALISED) != 0u && token < COLS) {
    counts[row.sequence * COLS + token] += 1u;
  }
}

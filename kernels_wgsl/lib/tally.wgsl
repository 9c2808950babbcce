// tally: of some tokens the largest score, the sum of exp((score - most) / temperature), and the best with noise

struct Tally {
  most: f32,
  sum: f32,
  best: f32,  // score + temperature * noise; of equals the lowest token
  token: u32,
}

var<workgroup> tallies: array<Tally, 256>;

fn no_tally() -> Tally {
  return Tally(LOWEST, 0.0, LOWEST, NONE);
}

fn both(a: Tally, b: Tally, inverse: f32) -> Tally {
  let most = max(a.most, b.most);
  let sum = a.sum * exp((a.most - most) * inverse) + b.sum * exp((b.most - most) * inverse);
  if (b.best > a.best || (b.best == a.best && b.token < a.token)) {
    return Tally(most, sum, b.best, b.token);
  }
  return Tally(most, sum, a.best, a.token);
}

// The tally of a workgroup of 256, for every thread. Holds barriers: call it in uniform control flow.
fn tally(mine: Tally, inverse: f32, t: u32) -> Tally {
  tallies[t] = mine;
  for (var width = 128u; width > 0u; width /= 2u) {
    workgroupBarrier();
    if (t < width) {
      tallies[t] = both(tallies[t], tallies[t + width], inverse);
    }
  }
  workgroupBarrier();
  let all = tallies[0];
  workgroupBarrier();  // it may be called again
  return all;
}

// best: the best candidate of a workgroup of 256; of equal ones the lowest token, as numpy's argmax

struct Candidate {
  value: f32,
  token: u32,
}

var<workgroup> best_value: array<f32, 256>;
var<workgroup> best_token: array<u32, 256>;

fn better(a: Candidate, b: Candidate) -> Candidate {
  if (b.value > a.value || (b.value == a.value && b.token < a.token)) {
    return b;
  }
  return a;
}

// Holds barriers: call it in uniform control flow. Thread 0 gets the answer.
fn best(mine: Candidate, t: u32) -> Candidate {
  var winner = mine;
  best_value[t] = mine.value;
  best_token[t] = mine.token;
  for (var width = 128u; width > 0u; width /= 2u) {
    workgroupBarrier();
    if (t < width) {
      winner = better(winner, Candidate(best_value[t + width], best_token[t + width]));
      best_value[t] = winner.value;
      best_token[t] = winner.token;
    }
  }
  return winner;
}

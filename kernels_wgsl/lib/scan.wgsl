// scan: sums of what the threads of a workgroup of 256 bring, up to each of them

var<workgroup> sums: array<f32, 256>;

// The sum of threads 0 to t (Hillis and Steele 1986); sums[255] is that of all. Holds barriers.
fn scan(mine: f32, t: u32) -> f32 {
  var sum = mine;
  sums[t] = sum;
  for (var width = 1u; width < 256u; width *= 2u) {
    workgroupBarrier();
    let left = sums[t - min(t, width)];
    workgroupBarrier();
    sum += select(0.0, left, t >= width);
    sums[t] = sum;
  }
  workgroupBarrier();
  return sum;
}

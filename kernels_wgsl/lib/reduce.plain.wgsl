// reduce plain: sums and maxima over the WG threads of a workgroup, by halving in workgroup memory
// why     Runs everywhere; a subgroup's size and order need not be known. The kernel says what `Reduced` is: f32 or vec4<f32>.

struct Lane {
  @builtin(local_invocation_index) t: u32,
}

var<workgroup> reduced: array<Reduced, WG>;

// All threads' values added up. Both hold barriers: call them in uniform control flow.
fn reduce_add(mine: Reduced, lane: Lane) -> Reduced {
  workgroupBarrier();  // what an earlier reduction left may still be read
  reduced[lane.t] = mine;
  for (var width = WG / 2u; width > 0u; width /= 2u) {
    workgroupBarrier();
    if (lane.t < width) {
      reduced[lane.t] += reduced[lane.t + width];
    }
  }
  workgroupBarrier();
  return reduced[0];
}

fn reduce_max(mine: Reduced, lane: Lane) -> Reduced {
  workgroupBarrier();
  reduced[lane.t] = mine;
  for (var width = WG / 2u; width > 0u; width /= 2u) {
    workgroupBarrier();
    if (lane.t < width) {
      reduced[lane.t] = max(reduced[lane.t], reduced[lane.t + width]);
    }
  }
  workgroupBarrier();
  return reduced[0];
}

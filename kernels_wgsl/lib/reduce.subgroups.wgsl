// reduce subgroups: the same within subgroups of whatever size, then over the subgroups
// needs   subgroups
// why     Two barriers in place of one for each halving.

struct Lane {
  @builtin(local_invocation_index) t: u32,
  @builtin(subgroup_invocation_id) within: u32,
  @builtin(subgroup_id) subgroup: u32,
  @builtin(num_subgroups) subgroups: u32,
}

var<workgroup> reduced: array<Reduced, WG>;  // one a subgroup

// All threads' values added up. Both hold barriers: call them in uniform control flow.
fn reduce_add(mine: Reduced, lane: Lane) -> Reduced {
  let sum = subgroupAdd(mine);
  workgroupBarrier();  // what an earlier reduction left may still be read
  if (lane.within == 0u) {
    reduced[lane.subgroup] = sum;
  }
  workgroupBarrier();
  var total = reduced[0];
  for (var i = 1u; i < lane.subgroups; i++) {
    total += reduced[i];
  }
  return total;
}

fn reduce_max(mine: Reduced, lane: Lane) -> Reduced {
  let most = subgroupMax(mine);
  workgroupBarrier();
  if (lane.within == 0u) {
    reduced[lane.subgroup] = most;
  }
  workgroupBarrier();
  var total = reduced[0];
  for (var i = 1u; i < lane.subgroups; i++) {
    total = max(total, reduced[i]);
  }
  return total;
}

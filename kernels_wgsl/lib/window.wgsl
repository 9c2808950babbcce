// window: how far back a row attends (Longformer, Beltagy et al. 2020)

override WINDOW: u32 = 0;  // positions, its own among them; 0 for all

// The first position that a row at `position` attends to.
fn window_start(position: u32) -> u32 {
  if (WINDOW == 0u) {
    return 0u;
  }
  return position + 1u - min(position + 1u, WINDOW);
}

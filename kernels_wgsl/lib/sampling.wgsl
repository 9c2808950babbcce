// sampling: how a sequence chooses its tokens, and what its kernels share

struct Sampling {
  temperature: f32,
  inverse: f32,  // 1 / temperature; 0 for 0
  top_p: f32,    // above 1: off
  min_p: f32,
  presence: f32,
  frequency: f32,
  repetition: f32,
  top_k: u32,    // 0: off
  seed: vec2<u32>,
  flags: u32,
  waits: u32,    // 1: the host has to choose, until then steps change nothing
}

struct Candidates {
  count: atomic<u32>,
  cutoff: u32,                     // every token of this bin and above is there; 0: every token
  item: array<vec2<u32>, CANDIDATES>,  // bits of the score, token; in no order
}

const FILTERED = 1u;   // flags: top_k, top_p or min_p is on
const PENALISED = 2u;  // a penalty is on
const BIASED = 4u;
const IN_PROMPT = 0x80000000u;  // the bit of a count

const NONE = 0xFFFFFFFFu;   // no token: every logit is infinite or no number
const HOST = 0xFFFFFFFEu;   // no token: the host has to choose
const LOWEST = -1e30;       // the score of a token that is never chosen
const CANDIDATES = 1024u;
const BINS = 2048u;         // of an eighth each, from -128 to 128; the outermost hold what lies beyond

fn bin_of(score: f32) -> u32 {
  return u32(clamp(floor((score + 128.0) * 8.0), 0.0, f32(BINS - 1u)));
}

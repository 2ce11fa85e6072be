// How long to wait before the next try: exponential with full jitter, so that many pages that lost one server do not
// come back to it in one wave. Pure: the chance is an argument.

const BASE_MS = 500;
const CAP_MS = 30_000;
// Jitter may draw zero; without a floor an address that refuses at once would be asked in a tight loop.
const FLOOR_MS = 200;

/** Milliseconds before try number `attempt` (from 0); `chance` is in [0, 1). */
export function delay(attempt, chance) {
  const ceiling = Math.min(CAP_MS, BASE_MS * 2 ** Math.min(attempt, 16));
  return Math.max(FLOOR_MS, Math.round(ceiling * chance));
}

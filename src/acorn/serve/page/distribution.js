// What sampling settings make of the next token's distribution: the same filters in the same order as acorn's sampler
// (temperature, top-k, top-p, min-p). Pure functions; tests compare them with the sampler.

const GREEDY_TEMPERATURE = 1e-5;

/**
 * @param next `top`: [id, piece, log probability], the most likely first; `rest`: [log probability, count] of all the
 *   others, in bins. Tokens that are never sampled are in neither.
 * @param settings temperature, top_k, top_p, min_p
 * @returns tokens: {id, piece, p, raw} of `top` in order; rest: probability of all others; kept: tokens that may be
 *   chosen.
 */
export function afterSettings(next, settings) {
  const entries = [
    ...next.top.map(([, , logprob]) => ({ logprob, count: 1 })),
    ...next.rest.map(([logprob, count]) => ({ logprob, count })),
  ];
  const weights = entries.length ? filtered(entries, settings) : [];
  const total = weights.reduce((sum, { weight, count }) => sum + weight * count, 0);
  const share = ({ weight, count }) => (weight * count) / total;
  const kept = weights.reduce((sum, { weight, count }) => sum + (weight > 0 ? count : 0), 0);
  return {
    tokens: next.top.map(([id, piece, logprob], n) => ({ id, piece, p: share(weights[n]), raw: Math.exp(logprob) })),
    rest: weights.slice(next.top.length).reduce((sum, entry) => sum + share(entry), 0),
    kept,
  };
}

/** Weights relative to the most likely entry, and how many tokens of each are left. */
function filtered(entries, { temperature, top_k, top_p, min_p }) {
  const best = Math.max(...entries.map((entry) => entry.logprob));
  if (temperature < GREEDY_TEMPERATURE) {
    const chosen = entries.findIndex((entry) => entry.logprob === best);
    return entries.map((entry, n) => ({ weight: n === chosen ? 1 : 0, count: n === chosen ? 1 : entry.count }));
  }
  let left = entries.map(({ logprob, count }) => ({ weight: Math.exp((logprob - best) / temperature), count }));
  if (top_k > 0) left = first(left, (_, before) => top_k - before.count);
  if (top_p < 1) {
    const total = left.reduce((sum, { weight, count }) => sum + weight * count, 0);
    left = first(left, (entry, before) => Math.ceil((top_p * total - before.weight) / entry.weight - 1e-9));
  }
  return left.map((entry) => (entry.weight < min_p ? { ...entry, weight: 0 } : entry));
}

/** Keeps the first entries, of the last one a part, and those exactly as likely. `wanted`: how many tokens of one. */
function first(entries, wanted) {
  const before = { count: 0, weight: 0 };
  let least = Infinity;
  return entries.map((entry) => {
    if (!entry.weight) return entry;
    const count = entry.weight === least ? entry.count : Math.min(entry.count, Math.max(0, wanted(entry, before)));
    before.count += entry.count;
    before.weight += entry.count * entry.weight;
    if (!count) return { ...entry, weight: 0 };
    least = entry.weight;
    return { ...entry, count };
  });
}

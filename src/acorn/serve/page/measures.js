// What tokens are colored by. Each measure: its name, its value for a token, its text, and how strong its color is.

export const bits = (nats) => nats / Math.LN2;

export const MEASURES = {
  surprise: {
    name: "Surprise",
    of: (token) => (token.logprob === null || token.logprob === undefined ? null : bits(-token.logprob)),
    text: (value) => `${value.toFixed(2)} bits`,
    heat: (value) => value / 12,
    low: "expected",
    high: "12 bits and more",
  },
  entropy: {
    name: "Entropy",
    of: (token) => (token.entropy === null || token.entropy === undefined ? null : bits(token.entropy)),
    text: (value) => `${value.toFixed(2)} bits`,
    heat: (value) => value / 10,
    low: "certain",
    high: "10 bits and more",
  },
  rank: {
    name: "Rank",
    of: (token) => token.rank ?? null,
    text: (value) => value.toLocaleString("en-US"),
    heat: (value) => Math.log10(value) / 3,
    low: "first",
    high: "1,000 and more",
  },
};

/** Strength of the color, from 0 to 1. */
export function heatOf(measure, token) {
  const value = measure.of(token);
  return value === null ? 0 : Math.min(1, Math.max(0, measure.heat(value)));
}

/** A token's text as it is shown: white space and parts of characters are visible. */
export function visible(token) {
  const { piece, bytes } = token;
  if (piece === "" || piece === undefined) return "∅";
  if (piece.includes("\ufffd") && bytes) return `⟨${bytes.match(/../g).join(" ")}⟩`;
  return piece.replaceAll("\n", "↵\n").replaceAll("\t", "⇥\t").replaceAll("\r", "␍");
}

/** The same on one line, for lists and labels. */
export const visibleLine = (token) => visible(token).replaceAll("\n", "").replaceAll("\t", "").replace(/^ +| +$/g, (blanks) => "␣".repeat(blanks.length)) || "∅";

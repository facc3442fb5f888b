// A chart of curves over steps, drawn by hand in SVG.

import { svg, whole } from "./dom.js";

const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [720, 280, 52, 12, 12, 26];

/** Round numbers from `low` to `high`, about `count` of them. */
export function ticks(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-9; at += step) found.push(Number(at.toPrecision(12)));
  return found;
}

/** Series of {points: [[x, y]], style: `raw` (a thin line) or `points`}. `x`, `y`: axes; `label`: the chart in words. */
export function curve(series, { x, y, label, marks = [] }) {
  const all = series.flatMap((one) => one.points).filter(([, value]) => Number.isFinite(value));
  const chart = svg("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label });
  if (!all.length) return chart;
  const xs = all.map(([at]) => at), ys = all.map(([, value]) => value).sort((a, b) => a - b);
  const [left, right] = [Math.min(...xs), Math.max(...xs)];
  // The first steps of a run are so much worse that they would flatten the rest: the highest 2 % are cut off.
  const [low, high] = [ys[0], ys[Math.floor(0.98 * (ys.length - 1))]];
  const pad = 0.06 * (high - low || 1);
  const [bottom, top] = [low - pad, high + pad];
  const px = (at) => LEFT + ((at - left) / (right - left || 1)) * (WIDTH - LEFT - RIGHT);
  const py = (value) => TOP + (1 - (Math.min(value, top) - bottom) / (top - bottom)) * (HEIGHT - TOP - BOTTOM);
  for (const value of ticks(bottom, top, 5)) {
    chart.append(svg("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: py(value), y2: py(value) }),
      svg("text", { class: "tick", x: LEFT - 8, y: py(value) + 4, "text-anchor": "end", text: String(value) }));
  }
  for (const at of ticks(left, right, 6)) {
    chart.append(svg("text", { class: "tick", x: px(at), y: HEIGHT - BOTTOM + 18, "text-anchor": "middle", text: whole(at) }));
  }
  chart.append(svg("text", { class: "tick", x: WIDTH - RIGHT, y: HEIGHT - BOTTOM - 6, "text-anchor": "end", text: x }),
    svg("text", { class: "tick", x: LEFT + 6, y: TOP + 10, text: y }));
  for (const at of marks) chart.append(svg("line", { class: "now", x1: px(at), x2: px(at), y1: TOP, y2: HEIGHT - BOTTOM }));
  series.forEach(({ points, style }, n) => {
    const line = points.filter(([, value]) => Number.isFinite(value)).map(([at, value]) => [px(at).toFixed(1), py(value).toFixed(1)]);
    chart.append(svg("polyline", { class: `c${n} ${style}`, points: line.map((point) => point.join(",")).join(" ") }));
    if (style === "points" && line.length <= 80) chart.append(...line.map(([cx, cy]) => svg("circle", { class: `c${n}`, cx, cy, r: 3 })));
  });
  return chart;
}

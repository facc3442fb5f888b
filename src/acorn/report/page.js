// Two comforts; the report is complete without them. Every closed section opens for printing, and charts say the
// values under the pointer, read back from the points that are drawn.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((section) => (section.open = true)));

const written = (value) =>
  Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(4)));

function time(seconds) {
  const [days, hours, minutes] = [86400, 3600, 60].map((unit) => Math.floor(seconds / unit));
  if (days) return `${days} d ${hours % 24} h`;
  if (hours) return `${hours} h ${minutes % 60} min`;
  return minutes ? `${minutes} min ${Math.round(seconds % 60)} s` : `${written(seconds)} s`;
}

const axes = { tokens: (x) => `${written(x)} tokens`, step: (x) => `step ${written(x)}`, seconds: time };

for (const chart of document.querySelectorAll("svg.chart")) {
  const [left, top, width, height] = chart.dataset.plot.split(" ").map(Number);
  const { x, xHigh, yLow, yHigh } = chart.dataset;
  const lines = [...chart.querySelectorAll("polyline[data-name]")].map((line) => ({
    name: line.dataset.name,
    points: line.getAttribute("points").split(" ").map((pair) => pair.split(",").map(Number)),
  }));
  const hair = document.createElementNS("http://www.w3.org/2000/svg", "line");
  hair.setAttribute("class", "hair");
  hair.setAttribute("y1", top);
  hair.setAttribute("y2", top + height);
  const readout = document.createElement("div");
  readout.className = "readout";

  const leave = () => (hair.remove(), readout.remove());
  const move = (event) => {
    const box = chart.getBoundingClientRect();
    const scale = chart.viewBox.baseVal.width / box.width;
    const at = (event.clientX - box.left) * scale - left;
    if (at < 0 || at > width || !lines.length) return leave();
    hair.setAttribute("x1", left + at);
    hair.setAttribute("x2", left + at);
    chart.append(hair);
    const rows = [axes[x]((at / width) * Number(xHigh))];
    for (const { name, points } of lines) {
      if (at < points[0][0] - 6 || at > points.at(-1)[0] + 6) continue; // the run had not begun, or was over
      const near = points.reduce((best, point) => (Math.abs(point[0] - at) < Math.abs(best[0] - at) ? point : best));
      rows.push(`${name}: ${written(Number(yHigh) - (near[1] / height) * (yHigh - yLow))}`);
    }
    readout.replaceChildren(...rows.flatMap((row) => [row, document.createElement("br")]).slice(0, -1));
    chart.parentElement.append(readout);
    const beside = (left + at) / scale + 14;
    const room = box.width - readout.offsetWidth;
    readout.style.left = `${beside > room ? Math.max(0, beside - 28 - readout.offsetWidth) : beside}px`;
    readout.style.top = `${top / scale + 8}px`;
  };
  chart.addEventListener("pointermove", move);
  chart.addEventListener("pointerleave", leave);
}

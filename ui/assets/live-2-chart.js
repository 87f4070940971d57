// The live panel, part 2 of 5: the loss chart, drawn as SVG.
const chart = { data: null, at: null };
const canvas = svg("svg", { class: "lv-plot", "aria-hidden": "true" });
const tip = make("div", "lv-tip");
const chartEmpty = make("p", "lv-none", say("chart_empty"));
const legend = put(make("div", "lv-legend"), put(make("span", "lv-key-smooth"), say("smoothed")), put(make("span", "lv-key-raw"), say("raw")), put(make("span", "lv-key-held"), say("held_out")));
const plane = put(make("div", "lv-plane"), canvas, tip, chartEmpty);
tip.hidden = true;
tip.setAttribute("role", "status");
plane.tabIndex = 0;
plane.setAttribute("role", "img");
put(ui.chart, put(make("div", "lv-part-head"), make("h3", "", say("loss")), legend), plane);

const EDGE = { left: 50, right: 10, top: 8, bottom: 24 };
const niceSteps = (low, high, wanted) => {
  const raw = (high - low) / wanted || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const size = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((step) => step >= raw);
  const ticks = [];
  for (let value = Math.ceil(low / size) * size; value <= high + size * 1e-9; value += size) ticks.push(Number(value.toPrecision(12)));
  return ticks;
};
const scales = (data, width, height) => {
  // The highest 4 % of the raw values may leave the picture, so that one wild step does not flatten the rest.
  const highs = [...data.high].sort((a, b) => a - b);
  const held = data.validation.map(([, loss]) => loss);
  const top = Math.max(highs[Math.floor((highs.length - 1) * 0.96)], ...data.smooth, ...held);
  const bottom = Math.min(...data.low, ...held);
  const room = (top - bottom) * 0.06 || Math.abs(top) * 0.1 || 0.1;
  const y0 = Math.max(bottom - room, bottom >= 0 ? 0 : -Infinity);
  const y1 = top + room;
  const x0 = data.step.length > 1 ? Math.min(data.step[0], 1) : data.step[0] - 1;
  const x1 = Math.max(data.step[data.step.length - 1], x0 + 1);
  const inner = [width - EDGE.left - EDGE.right, height - EDGE.top - EDGE.bottom];
  return {
    y0, y1, x0, x1,
    x: (step) => EDGE.left + ((step - x0) / (x1 - x0)) * inner[0],
    y: (loss) => EDGE.top + (1 - (Math.min(loss, y1) - y0) / (y1 - y0)) * inner[1],
  };
};
const path = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
const drawChart = () => {
  const data = chart.data;
  const has = Boolean(data && data.step.length);
  chartEmpty.hidden = has;
  legend.hidden = !has;
  const [width, height] = [plane.clientWidth, plane.clientHeight];
  if (!has || width < 40) return canvas.replaceChildren();
  canvas.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const to = (chart.scale = scales(data, width, height));
  const lower = data.step.map((step, i) => [to.x(step), to.y(data.low[i])]);
  const upper = data.step.map((step, i) => [to.x(step), to.y(data.high[i])]);
  const smooth = data.step.map((step, i) => [to.x(step), to.y(data.smooth[i])]);
  const last = smooth[smooth.length - 1];
  const held = data.validation.map(([step, loss]) => [to.x(step), to.y(loss)]);
  legend.lastChild.hidden = !held.length;
  canvas.replaceChildren(
    ...gridLines(to, width, height),
    svg("path", { class: "lv-raw", d: `${path(upper)}${path([...lower].reverse()).replace("M", "L")}Z` }),
    svg("path", { class: "lv-smooth", d: path(smooth) }),
    svg("path", { class: "lv-held", d: path(held) }),
    ...held.map(([x, y]) => svg("circle", { class: "lv-held-dot", cx: x, cy: y, r: 2.5 })),
    svg("circle", { class: "lv-dot", cx: last[0], cy: last[1], r: 3.5 }),
    svg("g", { class: "lv-cross" }),
  );
  const index = data.low.indexOf(Math.min(...data.low));
  const lowest = say("lowest", { value: fixed(data.low[index]), step: data.step[index].toLocaleString() });
  const end = data.step.length - 1;
  plane.setAttribute("aria-label", say("chart_label", { value: fixed(data.smooth[end]), step: data.step[end], lowest }));
  if (chart.at !== null) pointAt(chart.at);
};
const gridLines = (to, width, height) => {
  const nodes = [];
  for (const value of niceSteps(to.y0, to.y1, 4)) {
    nodes.push(svg("line", { class: "lv-grid", x1: EDGE.left, x2: width - EDGE.right, y1: to.y(value), y2: to.y(value) }));
    nodes.push(label(EDGE.left - 8, to.y(value) + 4, number(value, 4), "end"));
  }
  for (const value of niceSteps(to.x0, to.x1, Math.max(2, Math.floor(width / 130)))) {
    if (value !== Math.round(value)) continue;
    const edge = to.x(value) > width - EDGE.right - 16;
    nodes.push(label(to.x(value), height - 6, value.toLocaleString(), edge ? "end" : "middle"));
  }
  return nodes;
};
const label = (x, y, text, anchor) => {
  const node = svg("text", { class: "lv-tick", x, y, "text-anchor": anchor });
  node.textContent = text;
  return node;
};
const pointAt = (index) => {
  const data = chart.data;
  if (!data || !data.step.length || !chart.scale) return;
  const i = (chart.at = Math.min(Math.max(index, 0), data.step.length - 1));
  const [x, y] = [chart.scale.x(data.step[i]), chart.scale.y(data.smooth[i])];
  const cross = canvas.querySelector(".lv-cross");
  cross.replaceChildren(
    svg("line", { x1: x, x2: x, y1: EDGE.top, y2: plane.clientHeight - EDGE.bottom }),
    svg("circle", { class: "lv-dot", cx: x, cy: y, r: 4 }),
  );
  const range = data.low[i] === data.high[i] ? fixed(data.low[i]) : `${fixed(data.low[i])} – ${fixed(data.high[i])}`;
  tip.replaceChildren(
    make("span", "lv-small", `${say("step")} ${data.step[i].toLocaleString()}`),
    make("strong", "", fixed(data.smooth[i])),
    make("span", "lv-small", `${say("raw")} ${range}`),
    ...heldBefore(data, data.step[i]),
  );
  tip.hidden = false;
  tip.style.left = `${Math.min(Math.max(x, 70), plane.clientWidth - 70)}px`;
};
const heldBefore = (data, step) => {
  const before = data.validation.filter(([at]) => at <= step).pop();
  return before ? [make("span", "lv-small", `${say("held_out")} ${fixed(before[1])}`)] : [];
};
const pointAway = () => {
  chart.at = null;
  tip.hidden = true;
  const cross = canvas.querySelector(".lv-cross");
  if (cross) cross.replaceChildren();
};
plane.addEventListener("pointermove", (event) => {
  if (!chart.data || !chart.scale) return;
  const x = event.clientX - plane.getBoundingClientRect().left;
  const far = chart.data.step.map((step) => Math.abs(chart.scale.x(step) - x));
  pointAt(far.indexOf(Math.min(...far)));
});
plane.addEventListener("pointerleave", pointAway);
plane.addEventListener("blur", pointAway);
plane.addEventListener("keydown", (event) => {
  const end = chart.data ? chart.data.step.length - 1 : 0;
  const at = chart.at === null ? end : chart.at;
  const moves = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: end, PageUp: at - 20, PageDown: at + 20 };
  if (!(event.key in moves)) return;
  event.preventDefault();
  pointAt(moves[event.key]);
});
new ResizeObserver(() => drawChart()).observe(plane);

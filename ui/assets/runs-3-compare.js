// The Runs page, part 3 of 3: two runs side by side; then the page begins.
const svg = (tag, attributes) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
};

$(".at-do-compare").addEventListener("click", async () => {
  const [first, second] = runs.filter((run) => chosen.has(run.id)).reverse(); // the older one first
  const reply = await ask("compare", { first: first.id, second: second.id });
  if (!reply) return;
  const box = $(".at-compare");
  const parts = [legend(reply.names), curves(reply.curves)];
  parts.push(table(say("settings"), reply.settings, reply.names, say("same_settings"), reply.labels));
  parts.push(table(say("data"), reply.data, reply.names, say("same_data")));
  parts.push(...reply.pictures.map((pair) => sideBySide(pair, reply.names)));
  $(".at-compare-body").replaceChildren(...parts);
  box.hidden = false;
  box.scrollIntoView({ block: "start" });
  $(".at-close").focus({ preventScroll: true });
});
$(".at-close").addEventListener("click", () => {
  $(".at-compare").hidden = true;
  $(".at-do-compare").focus();
});

const legend = (names) => make("p", "at-legend", ...names.map((name, i) => make("span", "at-run-" + (i + 1), name)));

function curves(lines) {
  const all = lines.flat();
  if (!all.length) return make("p", "at-quietly", say("no_curves"));
  const right = Math.max(...all.map(([step]) => step), 1);
  const losses = all.map(([, loss]) => loss).sort((a, b) => a - b);
  const top = losses[Math.floor(losses.length * 0.99)] * 1.08; // a single spike should not flatten the rest
  const low = losses[0] * 0.95;
  const plot = svg("svg", { viewBox: "0 0 800 240", class: "at-curves", role: "img", "aria-label": say("curves") });
  for (let i = 0; i <= 4; i++) {
    const y = 10 + i * 50;
    plot.append(svg("line", { x1: 56, x2: 790, y1: y, y2: y, class: "at-grid" }));
    const label = svg("text", { x: 50, y: y + 4, class: "at-axis", "text-anchor": "end" });
    label.textContent = (top - ((top - low) * i) / 4).toPrecision(3);
    plot.append(label);
  }
  for (let i = 0; i <= 4; i++) {
    const label = svg("text", { x: 56 + i * 183.5, y: 230, class: "at-axis", "text-anchor": i === 4 ? "end" : i ? "middle" : "start" });
    label.textContent = Math.round((right * i) / 4).toLocaleString();
    plot.append(label);
  }
  lines.forEach((line, index) => {
    const points = line.map(([step, loss]) => `${(56 + (step / right) * 734).toFixed(1)},${(10 + ((top - Math.min(loss, top)) / (top - low || 1)) * 200).toFixed(1)}`);
    plot.append(svg("polyline", { points: points.join(" "), class: "at-line-" + (index + 1) }));
  });
  return make("figure", "", make("figcaption", "", say("curves")), plot);
}

// labels: what options are called; facts of the data have their names among the texts.
function table(title, rows, names, same, labels = {}) {
  if (!rows.length) return make("section", "", make("h3", "", title), make("p", "at-quietly", same));
  const cell = (value) => make("td", value === null ? "at-default" : "", value === null ? say("default") : value);
  const body = make("tbody", "", ...rows.map(([key, first, second]) => make("tr", "", make("th", "", ...(labels[key] ? [labels[key], make("small", "", key)] : [words["runs.fact." + key] ?? key])), cell(first), cell(second))));
  const head = make("thead", "", make("tr", "", make("th"), ...names.map((name) => make("th", "", name))));
  return make("section", "", make("h3", "", title), make("div", "at-scroll", make("table", "", head, body)));
}

function sideBySide({ prompt, runs: rows }, names) {
  const strips = rows.map((shots, index) =>
    make("div", "at-strip", ...(shots.length ? shots.map((one) => shot(one, `${names[index]}, ${say("at_step", { step: one.step.toLocaleString() })}`)) : [make("p", "at-quietly", say("no_pictures", { name: names[index] }))])));
  return make("section", "", make("h3", "", prompt), ...strips);
}

draw();
const beat = setInterval(() => {
  if (!element.isConnected) return clearInterval(beat);
  if (!document.hidden) draw();
}, 4000);

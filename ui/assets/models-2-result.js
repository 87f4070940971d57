// What came of a job: progress, report, or what is inside a file.
const number = (value) => (typeof value === "number" ? (Number.isInteger(value) ? String(value) : value.toPrecision(4)) : value ?? "");
const size = (bytes) => (bytes > 1e9 ? (bytes / 1e9).toFixed(2) + " GB" : (bytes / 1e6).toFixed(1) + " MB");

function problemNode(problem) {
  const node = make("div", "mo-error", make("strong", "", problem.what));
  node.setAttribute("role", "alert");
  for (const key of ["where", "why", "next"]) if (problem[key]) node.append(make("p", "", problem[key]));
  return node;
}

function factsNode(rows) {
  const list = make("dl", "mo-facts");
  for (const [name, value] of rows) if (value !== "" && value != null) list.append(make("dt", "", name), make("dd", "", String(value)));
  return list;
}

function tableNode(heads, rows) {
  const head = make("tr", "", ...heads.map((text) => make("th", "", text)));
  const body = rows.map((row) => make("tr", "", ...row.map((cell) => make("td", typeof cell === "number" ? "mo-n" : "", String(number(cell))))));
  const box = make("div", "mo-scroll", make("table", "", make("thead", "", head), make("tbody", "", ...body)));
  box.tabIndex = 0;
  return box;
}

function svg(tag, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text != null) node.textContent = text;
  return node;
}

// Bars for each block: one, or two side by side.
function chart(title, blocks, keys) {
  const names = Object.keys(blocks);
  const most = Math.max(...names.flatMap((name) => keys.map((key) => blocks[name][key])), 1e-12);
  const width = 720, height = 190, step = width / Math.max(names.length, 1);
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "mo-chart", role: "img", "aria-label": title });
  names.forEach((name, place) => {
    keys.forEach((key, side) => {
      const tall = (blocks[name][key] / most) * (height - 56);
      const wide = (step * 0.72) / keys.length;
      const bar = svg("rect", { x: place * step + step * 0.14 + side * wide, y: height - 42 - tall, width: wide, height: tall, rx: 1.5, class: side ? "mo-second" : "" });
      bar.append(svg("title", {}, `${name}: ${number(blocks[name][key])}`));
      drawing.append(bar);
    });
    const turned = step < 34;
    const x = place * step + step / 2;
    drawing.append(svg("text", turned ? { transform: `translate(${x + 3} ${height - 2}) rotate(-90)` } : { x, y: height - 24, "text-anchor": "middle" }, name));
  });
  return make("div", "", make("h3", "", title), drawing);
}

const folded = (title, ...children) => make("details", "", make("summary", "", title), ...children);

function inspection(found) {
  const nodes = [make("h2", "", found.title)];
  const details = Object.entries(found.details).map(([name, value]) => [words["models.d." + name] || name, value]);
  nodes.push(factsNode([
    [words["models.file"], found.path], [words["models.size"], size(found.size)], [words["models.dtype"], found.dtype], ...details,
    ["SHA-256", found.sha256], [words["models.legacy"], found.legacy_hash],
  ]));
  if (found.layers.length) {
    nodes.push(chart(words["models.norms"], found.blocks, ["norm"]));
    const heads = ["layer", "kind", "rank", "alpha", "norm"].map((name) => words["models.l." + name]);
    nodes.push(folded(words["models.layers"].replace("{n}", found.layers.length), tableNode(heads, found.layers.map((l) => [l.name, l.kind, l.rank, l.alpha, l.norm]))));
  }
  if (found.tags.length) {
    const tags = found.tags.map(([tag, count]) => make("span", "", tag, make("b", "", String(count))));
    nodes.push(make("div", "", make("h3", "", words["models.tags"]), make("div", "mo-tags", ...tags)));
  }
  if (found.training_toml) nodes.push(trainingNode(found));
  const entries = Object.entries(found.metadata);
  if (entries.length) nodes.push(folded(words["models.metadata"].replace("{n}", entries.length), tableNode([words["models.m.key"], words["models.m.value"]], entries.map(([k, v]) => [k, v.length > 160 ? v.slice(0, 160) + "\u2026" : v]))));
  return nodes;
}

function trainingNode(found) {
  const again = make("button", "at-btn", words["models.again"]);
  again.type = "button";
  const said = make("p", "mo-done");
  said.setAttribute("role", "status");
  again.addEventListener("click", async () => {
    const reply = await server.train_again({});
    const link = make("a", "at-quiet", words["models.to_train"]);
    link.href = "./";
    if (reply.problems.length) said.textContent = reply.problems.map((p) => p.what).join(" ");
    else said.replaceChildren(reply.message + " ", link);
  });
  const notes = found.notes.length ? [make("ul", "", ...found.notes.map((note) => make("li", "", note)))] : [];
  return make("div", "", make("h3", "", words["models.trained"]), again, said, ...notes, folded(words["models.toml"], make("pre", "", found.training_toml)));
}

function comparison(found) {
  const heads = ["key", "first", "second"].map((name) => words["models.m." + name]);
  return [
    make("h2", "", words["models.compared"]),
    factsNode([
      [words["models.shared"], found.shared], [words["models.only_first"], found.only_first.length], [words["models.only_second"], found.only_second.length],
      [words["models.cosine"], found.cosine.toFixed(4)], [words["models.distance"], found.distance.toFixed(4)],
    ]),
    chart(words["models.both"], found.blocks, ["first", "second"]),
    folded(words["models.differing"], tableNode(heads, Object.entries(found.settings).map(([key, [one, two]]) => [key, one, two]))),
  ];
}

function report(found) {
  const rows = Object.entries(found.facts).map(([name, value]) => [name, value]);
  const nodes = [
    make("p", "mo-done", words["models.wrote"].replace("{path}", found.output)),
    factsNode([[words["models.kept"], found.kept.length], [words["models.dropped"], found.dropped.length],
      [words["models.error"], found.error == null ? "" : (100 * found.error).toFixed(3) + " %"], ...rows]),
    ...found.notes.map((note) => make("p", "mo-about", note)),
  ];
  if (found.dropped.length) nodes.push(folded(words["models.dropped"], tableNode([words["models.l.layer"], words["models.l.why"]], found.dropped.map((d) => [d.name, d.why]))));
  if (found.kept.length) nodes.push(folded(words["models.kept"], tableNode(["layer", "rank", "error"].map((name) => words["models.l." + name]), found.kept.map((k) => [k.name, k.rank ?? "", k.error == null ? "" : (100 * k.error).toFixed(2) + " %"]))));
  return nodes;
}

function show(job) {
  page.job = job;
  at(".mo-go").disabled = !!job?.active;
  at(".mo-stop").hidden = !job?.active;
  at(".mo-stop").disabled = false;
  if (!job) return;
  const box = at(".mo-result");
  if (job.active) {
    const bar = make("progress");
    if (job.total) Object.assign(bar, { max: job.total, value: job.done });
    bar.setAttribute("aria-label", words["models." + job.kind]);
    const step = words["models.p." + job.doing] || job.doing || words["models.starting"];
    box.replaceChildren(make("h2", "", words["models." + job.kind]), make("p", "mo-about", job.total ? `${step}: ${job.done} / ${job.total}` : step), bar);
    setTimeout(poll, 500);
  } else if (job.errors.length) {
    marks(job.errors);
    box.replaceChildren(...job.errors.map(problemNode));
  } else if (job.result) {
    const draw = { inspect: inspection, compare: comparison }[job.kind] || report;
    box.replaceChildren(...draw(job.result));
  } else {
    box.replaceChildren(make("p", "mo-about", words["models.ended"]));
  }
}

async function poll() {
  if (!element.isConnected) return;
  try {
    show((await server.look({})).job);
  } catch {
    setTimeout(poll, 2000); // the server may be starting again
  }
}

openPage();

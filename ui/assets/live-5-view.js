// The live panel, part 5 of 5: figures, messages and files, and what happens when an update comes.

// ---- figures -------------------------------------------------------------------------------------

const figures = {};
const figure = (key, wide) => {
  const value = make("dd");
  const main = make("span", "lv-value", "–");
  const small = make("span", "lv-small");
  const spark = svg("svg", { class: "lv-spark", viewBox: "0 0 100 20", preserveAspectRatio: "none", "aria-hidden": "true" });
  put(value, main, small);
  if (wide) value.append(spark);
  put(ui.figures, put(make("div", wide ? "lv-figure lv-wide" : "lv-figure"), make("dt", "", say(key)), value));
  figures[key] = { main, small, spark };
};
["step", "epoch", "left", "speed"].forEach((key) => figure(key, false));
["loss", "learning_rate", "grad_norm", "memory"].forEach((key) => figure(key, true));
const show = (key, main, small) => {
  setText(figures[key].main, main);
  setText(figures[key].small, small || "");
};

const speed = (seconds) => {
  if (!seconds) return ["–", ""];
  return seconds > 1 ? [number(seconds), say("per_step")] : [number(1 / seconds), say("per_second")];
};
const drawFigures = (view) => {
  const now = view.figures;
  const [pace, unit] = speed(now.seconds);
  const images = now.images ? `${unit} · ${number(now.images)} ${say("images_per_second")}` : unit;
  show("step", now.step.toLocaleString(), now.total ? say("of", { total: now.total.toLocaleString() }) : "");
  show("epoch", now.epoch ? String(now.epoch) : "–", now.epochs ? say("of", { total: now.epochs }) : "");
  show("left", duration(now.left));
  show("speed", pace, images);
  show("loss", fixed(now.smooth), now.loss === null ? "" : `${say("raw")} ${fixed(now.loss)}`);
  const rates = Object.entries(now.lr);
  const same = new Set(rates.map(([, value]) => value)).size < 2;
  show("learning_rate", rates.length ? rate(rates[0][1]) : "–", same ? "" : [rates[0][0], ...rates.slice(1).map(([name, value]) => `${name} ${rate(value)}`)].join(" · "));
  show("grad_norm", number(now.grad));
  drawMemory(now.memory, view.gpu);
  drawSpark(figures.loss.spark, view.chart.smooth);
  drawSpark(figures.learning_rate.spark, view.chart.lr);
  drawSpark(figures.grad_norm.spark, view.chart.grad);
};
// What the run itself holds, and what the cards do, other programs included.
const drawMemory = (held, cards) => {
  const gib = (bytes) => number(bytes / 2 ** 30);
  const load = cards.map(([busy, used, total]) => say("card", { busy: busy ?? "–", used: gib(used), total: gib(total) }));
  show("memory", held ? `${gib(held)} GiB` : "–", load.join(" · "));
  figures.memory.main.closest(".lv-figure").hidden = !held && !cards.length;
};
const drawSpark = (node, values) => {
  const known = (values || []).filter((value) => value !== null);
  if (known.length < 2) return node.replaceChildren();
  const low = Math.min(...known);
  const span = Math.max(...known) - low || 1;
  const points = known.map((value, i) => `${((i / (known.length - 1)) * 100).toFixed(1)},${(18.5 - ((value - low) / span) * 17).toFixed(1)}`);
  node.replaceChildren(svg("polyline", { points: points.join(" "), "vector-effect": "non-scaling-stroke" }));
};

// ---- state, phase, progress ----------------------------------------------------------------------

let shown = null;
let heard = 0;
const drawHead = (view) => {
  ui.badge.dataset.state = view.state;
  setText(ui.badge, say(view.state));
  setText(ui.name, view.name);
  ui.name.title = view.name;
  setText(ui.hint, view.resumable ? say("resumable") : "");
  const now = view.figures;
  const [, , done, goal, unit] = view.phase;
  const title = titleOf(view.phase);
  const counted = goal > 0 ? `${title} · ${number(done)} / ${number(goal)}${unit ? ` ${unit}` : ""}` : title;
  const ended = !view.active && view.state !== "created";
  const text = view.catching_up ? say("catching_up") : ended ? "" : counted;
  setText(ui.phase, text || say(view.state));
  const share = now.step > 0 && now.total > 0 ? now.step / now.total : goal > 0 ? done / goal : null;
  drawBar(view, share, text);
  drawTime();
};
const titleOf = ([name, title]) => title || words[`live.phase_${name}`] || name;
const drawBar = (view, share, text) => {
  const percent = share === null ? null : Math.min(100, Math.max(0, share * 100));
  const unknown = percent === null && view.active;
  ui.bar.classList.toggle("lv-unknown", unknown && !still.matches);
  ui.bar.dataset.state = view.state;
  ui.fill.style.width = percent === null ? "" : `${percent.toFixed(2)}%`;
  ui.bar.setAttribute("aria-label", text || say(view.state));
  if (percent === null) ui.bar.removeAttribute("aria-valuenow");
  else ui.bar.setAttribute("aria-valuenow", percent.toFixed(0));
  setText(ui.left, percent === null ? "" : `${percent < 10 ? percent.toFixed(1) : Math.floor(percent)} %`);
};
const drawTime = () => {
  if (!shown || !shown.started) return setText(ui.time, "");
  const age = (Date.now() - heard) / 1000;
  const end = shown.active ? shown.now + Math.min(age, 20) : shown.ended || shown.now;
  setText(ui.time, `${say(shown.active ? "elapsed" : "took")} ${duration(end - shown.started)}`);
};
const speak = onChange((facts) => setText(ui.spoken, facts.filter(Boolean).join(". ")));

// ---- messages ------------------------------------------------------------------------------------

const opened = new Set();
const drawMessages = onChange((messages) => {
  // What ended the run stands on top; the rest has its place below, so that nothing moves while one looks.
  const [ending, rest] = [messages.filter((entry) => entry.kind === "error"), messages.filter((entry) => entry.kind !== "error")];
  ui.ending.replaceChildren(...ending.map(message));
  ui.ending.hidden = ending.length === 0;
  ui.messages.replaceChildren(...rest.map(message));
  messagePart.hidden = rest.length === 0;
  const warnings = rest.filter((entry) => entry.kind === "warning").length;
  setText(ui.jump, warnings === 1 ? say("one_warning") : say("warnings", { count: warnings }));
  ui.jump.hidden = warnings === 0;
});
const message = (entry) => {
  const { kind, text, problem = {}, count } = entry;
  const box = make("article", "lv-message");
  box.dataset.kind = kind;
  const head = problem.what || text;
  const line = put(make("p", "lv-what"), make("strong", "lv-kind", say(kind)), " ", head);
  if (count > 1) line.append(make("span", "lv-small", say("times", { count })));
  box.append(line);
  for (const key of ["where", "why", "next"])
    if (problem[key]) box.append(make("p", `lv-${key}`, key === "next" ? `→ ${problem[key]}` : problem[key]));
  if (problem.detail) box.append(detailsOf(problem.detail, `${kind}${head}`));
  if (kind !== "note") {
    const all = [head, problem.where, problem.why, problem.next, problem.detail].filter(Boolean).join("\n");
    const press = button("lv-button lv-copy", say("copy"), () => copy(all, press));
    box.append(press);
  }
  return box;
};
const detailsOf = (text, key) => {
  const box = put(make("details"), make("summary", "", say("details")), make("pre", "lv-detail", text));
  box.open = opened.has(key);
  box.addEventListener("toggle", () => (box.open ? opened.add(key) : opened.delete(key)));
  return box;
};

// ---- files, plan ----------------------------------------------------------------------------

const drawSaved = onChange(([saved, result]) => {
  const rows = [...saved].reverse().map((file) => {
    const name = file.path.split(/[\\/]/).pop();
    const kind = !words[`live.kind_${file.kind}`] ? file.kind : say(`kind_${file.kind}`, { step: file.step.toLocaleString(), epoch: file.epoch });
    const press = button("lv-button", say("copy"), () => copy(file.path, press));
    press.setAttribute("aria-label", `${say("copy")}: ${file.path}`);
    const actions = put(make("div"), ...(props.uses && !file.kind.match(/^(recovery|state)$/) ? [useButton(file.path, name)] : []), press);
    const row = put(make("li"), put(make("div"), make("span", "lv-file", name), make("span", "lv-small", kind)), actions);
    row.title = file.path;
    row.classList.toggle("lv-final", file.kind === "result" || file.path === result);
    return row;
  });
  ui.saved.replaceChildren(...rows);
  ui.saved.hidden = rows.length === 0;
  ui.savedEmpty.hidden = rows.length > 0;
});
// Another page takes the file up, with the model it was made for and the words it was taught.
const useButton = (path, name) => {
  const press = button("lv-button", say("use"), async () => {
    press.disabled = true;
    const reply = await server.use({ run: root.dataset.run, file: path }).catch(() => ({ problems: [{ what: say("lost") }] }));
    if (!reply.problems.length) return (location.href = "./generate");
    press.disabled = false;
    ui.savedFault.hidden = false;
    setText(ui.savedFault, reply.problems.map((one) => [one.what, one.why, one.next].filter(Boolean).join(". ")).join(" "));
  });
  press.setAttribute("aria-label", `${say("use")}: ${name}`);
  return press;
};
const drawUsage = onChange((words) => {
  const press = button("lv-button", say("copy"), () => copy(words, press));
  ui.usage.replaceChildren(`${say("usage")} `, make("code", "", words), " ", press);
  ui.usage.hidden = !words;
});
const drawPlan = onChange((plan) => {
  ui.plan.replaceChildren(...plan.map(([key, value]) => put(make("div"), make("dt", "", key), make("dd", "", value))));
  planBox.hidden = plan.length === 0;
});

// ---- updates -------------------------------------------------------------------------------------

const update = () => {
  const view = props.value;
  const has = Boolean(view && view.run);
  ui.empty.hidden = has;
  ui.body.hidden = !has;
  heard = Date.now();
  ui.lost.hidden = true;
  shown = has ? JSON.parse(JSON.stringify(view)) : null;
  if (!has) return;
  root.dataset.run = view.run;
  root.dataset.state = view.state;
  drawHead(shown);
  drawFigures(shown);
  const worst = shown.messages.find((entry) => entry.kind === "error");
  speak([say(shown.state), shown.active ? titleOf(shown.phase) : "", worst && worst.problem ? worst.problem.what : ""]);
  drawMessages(shown.messages);
  chart.data = shown.chart;
  drawChart();
  drawSamples(shown.samples, shown);
  drawUsage(shown.usage);
  drawSaved([shown.saved, shown.result]);
  drawPlan(shown.plan);
  drawLog(shown);
};
watch("value", update);
update();
const clock = setInterval(() => {
  if (!root.isConnected) return clearInterval(clock);
  if (!shown || !shown.active) return;
  drawTime();
  ui.lost.hidden = document.hidden || Date.now() - heard < 15000;
}, 1000);
// A tab that was asleep hears again with its next update; until then it should not cry wolf.
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) heard = Math.max(heard, Date.now() - 10000);
});

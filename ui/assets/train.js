// The Train page: the card of what was found, start, stop, resume, and the dialogs. The other train-*.js files
// follow it in the same scope.
// `element`, `props`, `server` and `trigger` come from the page; makeForm from form.js.
const schema = JSON.parse(props.schema);
const words = JSON.parse(props.texts);
const text = (key, parts = {}) => (words[key] ?? key).replace(/\{(\w+)\}/g, (_, name) => parts[name] ?? "");
const $ = (selector) => element.querySelector(selector);
const node = (tag, className, ...children) => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children.filter((child) => child != null && child !== ""));
  return made;
};
const count = (n) => Number(n).toLocaleString(document.documentElement.lang || undefined);

let presets = [];
let preset = "";
let run = null;
let pinned = new URLSearchParams(location.search).get("run"); // a run opened from the list stays shown
let active = false;
let tried = false; // Start was pressed: problems now show at their fields
let asked = 0;
let lookTimer = 0;
let busy = false;
let loaded = false;
let undo = null;

const form = makeForm($(".at-form"), schema, text, (values) => {
  props.value = values;
  planIsOld();
  clearTimeout(lookTimer);
  lookTimer = setTimeout(look, 150);
}, async (spec, value) => {
  const found = await chooseFile({ key: spec.key, path: String(value ?? ""), label: spec.label, folder: spec.path !== "file", either: spec.key === "pretrained_model_name_or_path" });
  if (!found || spec.path !== "written") return found;
  const name = String(value ?? "").split(/[\\/]/).pop();
  return name ? `${found}/${name}` : found;
});
const chooseFile = makeFiles($(".at-train"), server, text);

// ---- what was found ---------------------------------------------------------------------------
async function look(again = false) {
  if (!loaded) return;
  const mine = ++asked;
  $(".at-plan").classList.add("at-stale");
  let found;
  try {
    found = await server.look({ values: form.values(), preset, again: again === true, files: tried });
  } catch {
    return setTimeout(() => mine === asked && look(), 3000);
  }
  if (mine !== asked) return; // a newer question is on its way
  if (found.resolved) {
    form.family(found.family);
    fitPresets(found.family);
    form.resolved(found.resolved);
    drawFound(found);
  }
  drawProblems(found.problems);
}

function fact(label, main, ...more) {
  return node("div", "at-fact", node("dt", "", label), node("dd", "", node("strong", "", main), ...more.filter(Boolean).map((line) => (line instanceof Node ? line : node("span", "", line)))));
}

function absent(label) {
  const row = fact(label, text("train.none_yet"));
  row.classList.add("at-none");
  return row;
}

function shapes(buckets) {
  const box = node("div", "at-shapes");
  for (const { size, count: n } of buckets.slice(0, 12)) {
    const [w, h] = size;
    const scale = 30 / Math.max(w, h);
    const shape = node("i");
    shape.style.width = Math.max(6, w * scale) + "px";
    shape.style.height = Math.max(6, h * scale) + "px";
    const item = node("span", "at-shape", node("span", "at-shape-box", shape), node("b", "", count(n)), node("small", "", `${w}\u00d7${h}`));
    item.title = text("train.bucket", { w, h, n });
    box.append(item);
  }
  if (buckets.length > 12) box.append(node("small", "at-more", text("train.more_buckets", { n: buckets.length - 12 })));
  return box;
}

// Asked once, of a model whose file does not tell: a choice is an option like any other.
function prediction(choices) {
  const buttons = choices.map((choice) => {
    const button = node("button", "", text("train.takes_" + choice));
    button.type = "button";
    button.addEventListener("click", () => form.choose("prediction_type", choice));
    return button;
  });
  return node("div", "at-asks", node("p", "", text("train.asks_prediction")), ...buttons);
}

function drawFound({ model, data, length, notes }) {
  $(".at-plan").classList.remove("at-stale");
  const facts = $(".at-facts");
  facts.replaceChildren(
    model ? fact(text("train.model"), model.title, model.fits, model.detail, model.asks.length ? prediction(model.asks) : "") : absent(text("train.model")),
    data
      ? fact(text("train.pictures"), text("train.pictures_n", { n: count(data.images) }), data.captions, data.repeats, data.reg, data.buckets.length ? shapes(data.buckets) : "")
      : absent(text("train.pictures")),
    length ? fact(text("train.length"), text("train.steps_n", { n: count(length.steps) }), length.detail) : "",
  );
  const list = $(".at-notes");
  list.hidden = !notes.length;
  list.querySelector("summary").textContent = text(notes.length === 1 ? "train.note_one" : "train.notes_n", { n: notes.length });
  list.querySelector("ul").replaceChildren(...notes.map((note) => problemItem(note)));
}

function problemItem(problem) {
  const spec = problem.key && form.spec(problem.key);
  const item = node("li", "");
  const head = node(spec ? "button" : "p", "at-what", ...(spec ? [node("em", "", spec.label), " "] : []), capital(problem.what));
  if (spec) {
    head.type = "button";
    head.addEventListener("click", () => form.jump(problem.key));
  }
  item.append(head);
  for (const line of [spec ? "" : problem.where, problem.why]) if (line) item.append(node("p", "", capital(line)));
  if (problem.next) item.append(node("p", "at-next", capital(problem.next)));
  if (problem.detail) item.append(node("details", "", node("summary", "", text("train.details")), node("pre", "", problem.detail)));
  return item;
}

function drawProblems(problems) {
  const box = $(".at-needs");
  box.hidden = !problems.length;
  box.classList.toggle("at-loud", tried);
  box.querySelector("h3").textContent = tried ? text(problems.length === 1 ? "train.problem_one" : "train.problems_n", { n: problems.length }) : text("train.still_needed");
  box.querySelector("ol").replaceChildren(...problems.map(problemItem));
  // An empty form is not a mistake: until Start is pressed only wrong values are marked.
  const values = form.values();
  form.problems(tried ? problems : problems.filter((p) => p.key in values));
}

// ---- start, stop, resume ----------------------------------------------------------------------
const buttons = { start: $("#btn-start"), stop: $("#btn-stop"), resume: $("#btn-resume"), queue: $("#btn-queue") };
let afterState = () => {}; // train-run.js adds the buttons of a run that is at work

function drawState(state) {
  run = state.run;
  active = state.active;
  buttons.start.disabled = busy || state.active;
  buttons.queue.disabled = busy;
  buttons.queue.hidden = !state.active;
  buttons.stop.disabled = busy || !state.can_stop;
  buttons.resume.disabled = busy || !state.resumable;
  buttons.stop.hidden = !state.active;
  buttons.resume.hidden = !state.resumable;
  const line = $(".at-status");
  line.dataset.state = state.state;
  line.querySelector(".at-status-text").textContent = state.text;
  const bar = line.querySelector("progress");
  bar.hidden = !state.total || !state.active;
  if (state.total) {
    bar.max = state.total;
    bar.value = state.step;
  }
  line.querySelector("a").hidden = !run;
  afterState(state);
}

async function status() {
  try {
    const state = await server.status({ run, pinned: Boolean(pinned) });
    element.querySelector(".at-lost").hidden = true;
    if (state.run !== run) trigger("follow", { run: state.run });
    drawState(state);
  } catch {
    element.querySelector(".at-lost").hidden = false;
  }
}

async function act(name, more = {}) {
  if (busy) return;
  busy = true;
  for (const button of Object.values(buttons)) button.disabled = true;
  buttons[name].classList.add("at-busy");
  form.flush();
  clearTimeout(lookTimer); // what Start finds is drawn below
  asked++;
  try {
    const reply = await server[name]({ values: form.values(), run, preset, ...more });
    if (reply.ask) askOtherPictures(reply.ask);
    if (name === "start" || name === "queue") tried = reply.problems.length > 0;
    if (reply.problems.length) {
      drawProblems(reply.problems);
      const keyed = reply.problems.find((problem) => problem.key && form.spec(problem.key));
      if (keyed) form.jump(keyed.key);
    } else {
      drawProblems([]);
    }
    if (reply.message) toast(reply.message);
    if (reply.recent) form.recent(reply.recent);
    if (reply.run && !reply.problems.length) {
      run = reply.run;
      if (name === "start" && pinned) {
        pinned = null;
        history.replaceState(null, "", location.pathname);
      }
      trigger("follow", { run });
      if (name !== "stop") setTimeout(showLive, 300);
    }
  } catch (error) {
    toast(text("train.no_answer"), true);
  }
  busy = false;
  buttons[name].classList.remove("at-busy");
  $(".at-plan").classList.remove("at-stale");
  await status();
}

function showLive() {
  document.getElementById("live")?.scrollIntoView({ block: "start", behavior: "smooth" });
}

for (const name of Object.keys(buttons)) buttons[name].addEventListener("click", () => act(name));
$(".at-status a").addEventListener("click", (event) => {
  event.preventDefault();
  showLive();
});
$("#btn-look").addEventListener("click", () => look(true));

// ---- dialogs, toast ---------------------------------------------------------------------------
const reader = $("#dlg-text");

async function showText(kind) {
  const reply = await server.texts({ values: form.values(), run });
  reader.querySelector("h2").textContent = text("train." + kind);
  reader.querySelector(".at-dialog-help").textContent = text(`train.${kind}_help`);
  const pre = reader.querySelector("pre");
  pre.id = kind + "-text";
  pre.textContent = reply[kind];
  const wrong = reader.querySelector(".at-problem");
  wrong.hidden = !reply.problems.length;
  wrong.textContent = reply.problems.map((p) => p.what).join("\n");
  reader.showModal();
}

$("#btn-toml").addEventListener("click", () => showText("toml"));
$("#btn-command").addEventListener("click", () => showText("command"));
reader.querySelector(".at-copy").addEventListener("click", (event) => copyText(reader.querySelector("pre").textContent, event.target));
for (const dialog of element.querySelectorAll("dialog")) {
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog || event.target.closest(".at-close")) dialog.close();
  });
}

// Copies text, also where a page without HTTPS may not use the clipboard.
async function copyText(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = node("textarea", "at-sr");
    area.value = text;
    (button.closest("dialog") ?? document.body).append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  const label = button.textContent;
  button.textContent = words["train.copied"];
  setTimeout(() => (button.textContent = label), 1500);
}

// Gives a text to the browser as a file.
function download(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

const said = (problems) => problems.map((p) => [p.what, p.why, p.next].filter(Boolean).map(capital).join(" ")).join("\n");

// Asks the server; what it objects to is told and null comes back.
async function ask(name, data) {
  try {
    const reply = await server[name](data);
    if (!reply.problems?.length) return reply;
    toast(said(reply.problems), true);
  } catch {
    toast(text("train.no_answer"), true);
  }
  return null;
}

let toastTimer = 0;
function toast(message, bad = false, onUndo = null) {
  const box = $(".at-toast");
  box.replaceChildren(node("span", "", message));
  box.classList.toggle("at-bad", bad);
  if (onUndo) {
    const back = node("button", "", text("train.undo"));
    back.type = "button";
    back.addEventListener("click", () => {
      onUndo();
      box.hidden = true;
    });
    box.append(back);
  }
  box.hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => (box.hidden = true), onUndo ? 12000 : 6000);
}

// ---- opening ----------------------------------------------------------------------------------
async function open() {
  let state;
  try {
    state = await server.open_page({ run: pinned });
  } catch {
    return setTimeout(open, 1500);
  }
  presets = state.presets;
  preset = state.preset;
  run = state.run;
  form.recent(state.recent);
  // What was typed while the page was opening stays.
  const shown = { ...state.values, ...form.typed() };
  form.set(shown);
  props.value = shown;
  loaded = true;
  drawPresets();
  form.base(state.base);
  look();
  status();
  if (run) trigger("follow", { run });
  if (state.message) toast(state.message, true);
  element.querySelector(".at-train").dataset.ready = "true";
  // Scripts that set the value from the server (an import, say) show it like a preset.
  watch("value", () => {
    if (JSON.stringify(props.value) === JSON.stringify(form.values())) return;
    form.set(props.value ?? {});
    look();
  });
  let beats = 0;
  const beat = setInterval(() => {
    if (!element.isConnected) return clearInterval(beat);
    if (!document.hidden && !busy && (active || ++beats % 3 === 0)) status();
  }, 2000);
  document.addEventListener("visibilitychange", () => !document.hidden && status());
}
open();

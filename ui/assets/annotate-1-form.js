// Captioning and Tagging: one form for each task, drawn from its options.
const { text: say, $: at, node: make, button } = pageKit({ prefix: "annotate.", root: ".an-page" });
const READ = JSON.parse(props.read); // where the docs tell more
const page = { tasks: [], values: {}, kind: "", readers: {}, rules: [], titles: {}, job: null, trial: null, download: false };
const task = () => page.tasks.find((one) => one.kind === page.kind);
const numeric = (option) => ["int", "float"].includes(option.type);
const slides = (option) => option.type === "float" && option.min === 0 && option.max === 1 && !option.optional;

function select(option, value) {
  const node = make("select");
  option.choices.forEach((choice, place) => {
    const one = make("option", "", option.choice_titles?.[place] || choice);
    one.value = choice;
    node.append(one);
  });
  node.value = value;
  return node;
}

function slider(option, value, box) {
  const shown = make("output", "an-number", Number(value).toFixed(2));
  const node = make("input");
  Object.assign(node, { type: "range", min: option.min, max: option.max, step: 0.01, value });
  node.addEventListener("input", () => { shown.textContent = Number(node.value).toFixed(2); });
  box.append(make("div", "an-slide", node, shown));
  return node;
}

function plain(option, value) {
  const node = make(option.key === "prompt" ? "textarea" : "input");
  if (node.tagName === "INPUT") node.type = numeric(option) ? "number" : "text";
  if (numeric(option)) {
    node.step = option.type === "int" ? 1 : "any";
    if (option.min != null) node.min = option.min;
    if (option.max != null) node.max = option.max;
  }
  if (option.key === "train_data_dir") node.setAttribute("list", "an-folders");
  node.value = value ?? "";
  node.spellcheck = false;
  node.autocomplete = "off";
  return node;
}

// The models there are, and a field for any other.
function modelField(option, value, box) {
  const chosen = value ?? option.default;
  const list = make("select");
  const known = [{ name: "bundled", title: say("bundled"), size: "", note: "" }, ...task().models];
  for (const one of known) {
    const item = make("option", "", [one.title, one.note].filter(Boolean).join(" \u2013 "));
    item.value = one.name;
    list.append(item);
  }
  const own = make("option", "", say("other_model"));
  own.value = "";
  list.append(own);
  list.value = known.some((one) => one.name === chosen) ? chosen : "";
  const other = plain(option, list.value ? "" : chosen);
  other.setAttribute("aria-label", say("other_model"));
  const beside = withBrowse(other, { label: option.label, folder: true });
  const state = make("div", "an-model");
  const read = () => list.value || other.value;
  const look = async () => {
    beside.hidden = list.value !== "";
    state.replaceChildren();
    page.download = false;
    if (!read() || read() === "bundled") return;
    const asked = read();
    const reply = await server.about_model({ kind: page.kind, model: asked });
    if (asked !== read()) return;
    if (reply.there) { state.append(make("small", "an-good", say("model_there"))); return; }
    const agree = make("input");
    agree.type = "checkbox";
    agree.id = "an-download";
    agree.addEventListener("change", () => { page.download = agree.checked; });
    const label = make("label", "", reply.size ? say("download_of", { size: reply.size }) : say("download"));
    label.htmlFor = agree.id;
    state.append(agree, label);
  };
  list.addEventListener("change", look);
  other.addEventListener("change", look);
  list.id = "an-" + option.key;
  box.append(list, beside, state);
  page.readers[option.key] = read;
  look();
}

const titled = (option, value) => option.choice_titles?.[option.choices?.indexOf(value)] || value;

function drawField(option, value) {
  const box = make("div", "an-field" + (option.type === "bool" ? " an-flag" : ""));
  box.dataset.field = option.key;
  const label = make("label", "", option.label);
  label.htmlFor = "an-" + option.key;
  const head = withAbout(label, { help: option.help, name: option.key, min: option.min, max: option.max, fallback: titled(option, option.default), read: READ });
  if (option.key === task().model) {
    box.append(head);
    modelField(option, value, box);
  } else if (option.type === "bool") {
    const node = make("input");
    Object.assign(node, { type: "checkbox", checked: value ?? option.default, id: label.htmlFor });
    box.append(node, head);
    page.readers[option.key] = () => node.checked;
  } else {
    box.append(head);
    const now = value ?? option.default;
    const node = slides(option) ? slider(option, now, box) : option.choices ? select(option, now) : plain(option, now);
    node.id = label.htmlFor;
    if (["file", "folder"].includes(option.path)) box.append(withBrowse(node, { label: option.label, folder: option.path === "folder", key: option.key }));
    else if (!slides(option)) box.append(node);
    page.readers[option.key] = () => (numeric(option) ? (node.value === "" ? null : Number(node.value)) : node.value);
  }
  if (option.help) {
    const help = make("small", "", option.help);
    help.id = label.htmlFor + "-help";
    box.querySelector("#" + label.htmlFor)?.setAttribute("aria-describedby", help.id);
    box.append(help);
  }
  return box;
}

// Fields that have no effect as the others stand are not shown.
function arrange() {
  for (const { key, show_if: wanted = [] } of task().options) {
    const box = at(`[data-field="${key}"]`);
    if (box) box.hidden = wanted.some(([other, values]) => !values.includes(page.readers[other]?.()));
  }
}

function drawForm() {
  const now = task(), values = page.values[page.kind] || {};
  page.readers = {};
  page.download = false;
  for (const one of element.querySelectorAll(".an-kinds button")) one.setAttribute("aria-pressed", one.dataset.kind === page.kind);
  at(".an-kinds").hidden = page.tasks.length < 2;
  at(".an-about").textContent = say("about_" + page.kind);
  // The pictures and the model come first.
  const place = (option) => (option.key === "train_data_dir" ? 0 : option.key === now.model ? 1 : 2);
  const basic = now.options.filter((option) => option.level === "basic").sort((one, other) => place(one) - place(other));
  const more = now.options.filter((option) => option.level !== "basic");
  at(".an-basic").replaceChildren(...basic.map((option) => drawField(option, values[option.key])));
  at(".an-more .an-fields").replaceChildren(...more.map((option) => drawField(option, values[option.key])));
  at(".an-more").hidden = !more.length;
  arrange();
  at(".an-go").textContent = say("go_" + page.kind);
  at(".an-try").textContent = say(now.rules ? "try_rules" : "try");
  at(".an-try").hidden = !now.trial;
  at(".an-line").hidden = true;
  at(".an-rules").hidden = !now.rules;
  if (now.rules) drawRules();
}

// Another task of the page; it begins with the folder that was chosen.
function choose(kind) {
  keep();
  const folder = page.values[page.kind].train_data_dir;
  page.kind = kind;
  page.values[kind] = { ...page.values[kind] };
  page.values[kind].train_data_dir ||= folder;
  page.trial = null;
  drawForm();
  if (page.job?.active) return;
  if (page.job?.task === kind) show(page.job);
  else showNothing();
}

const read = () => Object.fromEntries(Object.entries(page.readers).map(([key, value]) => [key, value()]));
const keep = () => { page.values[page.kind] = read(); };
const asked = (more = {}) => ({ kind: page.kind, values: read(), ...(task().rules ? { rules: page.rules } : {}), ...more });

function marks(problems) {
  for (const box of element.querySelectorAll(".an-field")) {
    const wrong = problems.some((problem) => problem.key === box.dataset.field);
    box.classList.toggle("an-wrong", wrong);
    const hidden = wrong && box.closest("details");
    if (hidden) hidden.open = true;
  }
}

async function showCommand() {
  const reply = await server.command(asked());
  at(".an-line").textContent = reply.problems.length ? reply.problems.map((one) => one.what).join("\n") : reply.command;
  at(".an-line").hidden = false;
}

async function begin(trial) {
  keep();
  at(".an-go").disabled = at(".an-try").disabled = true;
  const reply = await server.start(asked({ try: trial, download: page.download }));
  marks(reply.problems);
  if (reply.problems.length) {
    at(".an-go").disabled = at(".an-try").disabled = false;
    at(".an-result").replaceChildren(...reply.problems.map(problemNode));
    return;
  }
  show(reply.job);
  // On a narrow page what comes of it stands below the form.
  if (at(".an-result").getBoundingClientRect().top > innerHeight * 0.8) at(".an-result").scrollIntoView({ block: "start" });
}

let saving = 0;
function changed() {
  keep();
  arrange();
  clearTimeout(saving);
  saving = setTimeout(() => { server.save(asked()); }, 800);
  if (page.trial && task().live) recompose();
}

async function openPage() {
  const reply = await server.open_page({});
  Object.assign(page, { tasks: reply.tasks, values: reply.values, kind: reply.kind, rules: reply.rules, titles: reply.titles });
  at("#an-folders").replaceChildren(...reply.folders.map((folder) => { const one = make("option"); one.value = folder; return one; }));
  at(".an-kinds").replaceChildren(...page.tasks.map((one) => {
    const node = button("", say(one.kind), () => choose(one.kind));
    node.dataset.kind = one.kind;
    return node;
  }));
  drawForm();
  if (reply.job) show(reply.job);
  else showNothing();
  element.dataset.ready = "1";
}

at(".an-form").addEventListener("submit", (event) => { event.preventDefault(); begin(false); });
at(".an-form").addEventListener("input", changed);
at(".an-try").addEventListener("click", () => begin(true));
at(".an-command").addEventListener("click", showCommand);
at(".an-stop").addEventListener("click", async () => { at(".an-stop").disabled = true; show((await server.stop({})).job); });

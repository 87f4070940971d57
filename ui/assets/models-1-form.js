// The Models page: one form for each job, drawn from a table.
const { words, $: at, node: make, button } = pageKit({ prefix: "models.", root: ".mo-page" });
const READ = JSON.parse(props.read); // where the docs tell more
const page = { forms: [], values: {}, kind: "inspect", readers: {}, job: null };

const MODEL = { key: "network_weights", either: true }; // files of models, and folders of diffusers

function input(field, value) {
  const node = make(field.kind === "words" ? "textarea" : "input");
  if (node.tagName === "INPUT") node.type = ["whole", "number"].includes(field.kind) ? "number" : "text";
  if (field.kind === "number") node.step = "any";
  if (field.kind === "whole") node.min = 1;
  if (field.kind === "file") node.setAttribute("list", "mo-files");
  node.value = value ?? "";
  node.spellcheck = false;
  return node;
}

function choice(field, value) {
  const node = make("select");
  for (const name of field.choices) {
    const option = make("option", "", words["models.c." + (name || "none")]);
    option.value = name;
    node.append(option);
  }
  node.value = value ?? field.default;
  return node;
}

function part(field, value, rows) {
  const path = input({ kind: "file" }, value.path);
  path.setAttribute("aria-label", words["models.part_path"]);
  const ratio = input({ kind: "number" }, value.ratio ?? 1);
  ratio.setAttribute("aria-label", words["models.part_ratio"]);
  const remove = button("", "\u00d7", () => { row.remove(); keep(); });
  remove.setAttribute("aria-label", words["models.part_remove"]);
  const row = make("div", "mo-part", withBrowse(path, { ...MODEL, label: words["models.part_path"] }), ratio, remove);
  rows.append(row);
}

function partsField(field, value, box) {
  const legend = make("legend", "", words["models.f." + field.name]);
  const rows = make("div");
  for (const item of value?.length ? value : [{}, {}]) part(field, item, rows);
  const more = button("at-quiet", words["models.part_add"], () => { part(field, {}, rows); rows.lastElementChild.querySelector("input").focus(); });
  box.append(legend, make("small", "", words["models.h.models"]), rows, make("div", "", more));
  page.readers[field.name] = () => [...rows.children].map((row) => {
    const [path, ratio] = row.querySelectorAll("input");
    return { path: path.value, ratio: ratio.value === "" ? 1 : Number(ratio.value) };
  });
}

function drawField(field, value) {
  const box = make(field.kind === "parts" ? "fieldset" : "div", "mo-field" + (field.kind === "flag" ? " mo-flag" : ""));
  box.dataset.field = field.name;
  if (field.kind === "parts") { partsField(field, value, box); return box; }
  const label = make("label", "", words["models.f." + field.name]);
  const node = field.kind === "choice" ? choice(field, value) : input(field, field.kind === "flag" ? "" : value ?? field.default);
  if (field.kind === "flag") { node.type = "checkbox"; node.checked = value ?? field.default; }
  node.id = label.htmlFor = "mo-" + field.name;
  const shown = field.kind === "file" ? withBrowse(node, { ...MODEL, label: label.textContent }) : node;
  const help = words["models.h." + field.name];
  const fallback = field.kind === "choice" ? words["models.c." + (field.default || "none")] : field.default;
  const head = withAbout(label, { help, name: field.option, fallback, read: READ });
  box.append(...(field.kind === "flag" ? [node, head] : [head, shown]));
  if (help) {
    const told = make("small", "", help);
    told.id = node.id + "-help";
    node.setAttribute("aria-describedby", told.id);
    box.append(told);
  }
  page.readers[field.name] = () => (field.kind === "flag" ? node.checked : node.value);
  return box;
}

function drawForm() {
  const form = page.forms.find((one) => one.kind === page.kind);
  const values = page.values[page.kind] || {};
  page.readers = {};
  at(".mo-about").textContent = words["models.about." + form.kind];
  at(".mo-fields").replaceChildren(...form.fields.filter((f) => !f.more).map((f) => drawField(f, values[f.name])));
  const more = form.fields.filter((f) => f.more);
  at(".mo-more").hidden = !more.length;
  at(".mo-more > div").replaceChildren(...more.map((f) => drawField(f, values[f.name])));
  at(".mo-line").hidden = true;
  for (const button of at(".mo-kinds").children) button.setAttribute("aria-pressed", String(button.dataset.kind === page.kind));
}

const read = () => Object.fromEntries(Object.entries(page.readers).map(([name, value]) => [name, value()]));
const keep = () => { page.values[page.kind] = read(); };

function marks(problems) {
  for (const box of element.querySelectorAll(".mo-field")) {
    box.classList.toggle("mo-wrong", problems.some((problem) => problem.key === box.dataset.field));
  }
}

async function showCommand() {
  const reply = await server.command({ kind: page.kind, values: read() });
  const line = at(".mo-line");
  line.textContent = reply.problems.length ? reply.problems.map((p) => p.what).join("\n") : reply.command;
  line.hidden = false;
}

async function begin(event) {
  event?.preventDefault();
  keep();
  at(".mo-go").disabled = true;
  const reply = await server.start({ kind: page.kind, values: read() });
  marks(reply.problems);
  if (reply.problems.length) {
    at(".mo-go").disabled = false;
    at(".mo-result").replaceChildren(...reply.problems.map(problemNode));
    return;
  }
  show(reply.job);
}

async function openPage() {
  const reply = await server.open_page({});
  Object.assign(page, { forms: reply.forms, values: reply.values, kind: reply.kind });
  at("#mo-files").replaceChildren(...reply.files.map((file) => { const o = make("option"); o.value = file; return o; }));
  at(".mo-kinds").replaceChildren(...page.forms.map((form) => {
    const made = button("", words["models." + form.kind], () => { keep(); page.kind = form.kind; drawForm(); });
    made.dataset.kind = form.kind;
    return made;
  }));
  drawForm();
  if (reply.job) show(reply.job);
  else at(".mo-result").replaceChildren(make("p", "mo-nothing", words["models.nothing_yet"]));
}

at(".mo-form").addEventListener("submit", begin);
at(".mo-form").addEventListener("input", keep);
at(".mo-command").addEventListener("click", showCommand);
at(".mo-stop").addEventListener("click", async () => { at(".mo-stop").disabled = true; show((await server.stop({})).job); });

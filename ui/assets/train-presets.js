// Presets on the Train page: choosing, comparing, loading, saving, renaming, deleting, writing out.
const chooser = $("#preset-choice");
const chosenPreset = () => presets.find((item) => item.id === chooser.value);

let modelFamily = null;
const fitsModel = (item) => !modelFamily || !item.family || item.family === modelFamily;

// Presets for the model at hand stand first; the others can still be chosen.
function fitPresets(family) {
  if (family === modelFamily) return;
  modelFamily = family;
  const shown = chooser.value;
  drawPresets();
  chooser.value = shown;
  aboutPreset();
}

function drawPresets() {
  const groups = new Map();
  const sorted = [...presets].sort((a, b) => fitsModel(b) - fitsModel(a));
  for (const item of sorted) groups.set(item.group, [...(groups.get(item.group) ?? []), item]);
  chooser.replaceChildren(new Option(text("train.no_preset"), ""));
  for (const [group, items] of groups) {
    const box = document.createElement("optgroup");
    box.label = group;
    box.append(...items.map((item) => new Option(item.title, item.id)));
    chooser.append(box);
  }
  chooser.value = presets.some((item) => item.id === preset) ? preset : "";
  aboutPreset();
}

function aboutPreset() {
  const chosen = chosenPreset();
  $(".at-preset-about").classList.toggle("at-problem", Boolean(chosen?.broken));
  const other = chosen && !fitsModel(chosen) ? text("train.preset_other", { line: chosen.line }) : "";
  $(".at-preset-about").textContent = [other, chosen?.about || text("train.preset_hint")].filter(Boolean).join(" ");
  $("#btn-load-preset").disabled = !chosen || chosen.broken;
  $("#btn-compare-preset").disabled = !chosen || chosen.broken;
  for (const id of ["#btn-rename-preset", "#btn-delete-preset"]) $(id).disabled = !chosen?.own;
  $("#btn-export-preset").disabled = !chosen;
}

// ---- the form against other values ------------------------------------------------------------
// What belongs to one person's work stays: model, pictures, names, files.
const ownValues = () => Object.fromEntries(Object.entries(form.values()).filter(([key]) => schema.own.includes(key)));

// {key: [value now, value then]} of every option that would change.
function changesTo(next) {
  const now = form.values();
  const found = new Map();
  for (const { key } of schema.groups.flatMap((group) => group.options)) {
    if (!(key in now) && !(key in next)) continue;
    const spec = form.spec(key);
    const [a, b] = [now[key] ?? spec.default, next[key] ?? spec.default];
    if (String(a ?? "") !== String(b ?? "") && !(Number(a) === Number(b) && a !== "" && b !== "" && a != null && b != null && typeof a !== "boolean")) found.set(key, [a, b]);
  }
  return found;
}

const spelled = (value) => (value === true ? text("form.on") : value === false ? text("form.off") : value == null || value === "" ? text("form.empty") : String(value));

function cell(tag, ...children) {
  return node(tag, "", ...children);
}

function optionCell(key) {
  const spec = form.spec(key);
  return cell("td", node("strong", "", spec?.label ?? key), node("code", "", key));
}

function changesTable(found) {
  const head = node("tr", "", ...["option", "now", "then"].map((name) => cell("th", text("train.column_" + name))));
  const rows = [...found].map(([key, [a, b]]) => node("tr", "", optionCell(key), cell("td", spelled(a)), cell("td", spelled(b))));
  return node("table", "at-table", node("thead", "", head), node("tbody", "", ...rows));
}

// Sets the whole form and offers the way back.
function takeOver(values, from, message, base) {
  const undo = { values: form.values(), preset };
  preset = from;
  form.base(base);
  form.set(values);
  form.flush();
  drawPresets();
  toast(message, false, async () => {
    preset = undo.preset;
    form.set(undo.values);
    form.flush();
    drawPresets();
    form.base(preset ? (await server.read_preset({ id: preset })).values : null);
  });
}

const changes = $("#dlg-changes");

async function comparePreset() {
  const chosen = chosenPreset();
  const reply = await ask("read_preset", { id: chosen.id });
  if (!reply) return;
  const next = { ...reply.values, ...ownValues() };
  const found = changesTo(next);
  changes.querySelector("h2").textContent = text("train.compare_title", { name: chosen.title });
  changes.querySelector(".at-dialog-help").textContent = [chosen.description, found.size ? text("train.compare_n", { n: found.size }) : text("train.compare_none")].filter(Boolean).join(" ");
  changes.querySelector(".at-scroll").replaceChildren(found.size ? changesTable(found) : "");
  changes.querySelector(".at-primary").disabled = !found.size;
  changes.showModal();
}

async function loadPreset() {
  const chosen = chosenPreset();
  const reply = await ask("read_preset", { id: chosen.id });
  if (!reply) return;
  const n = Object.keys(reply.values).length;
  takeOver({ ...reply.values, ...ownValues() }, chosen.id, text("train.preset_loaded", { n, name: chosen.title }), reply.values);
}

chooser.addEventListener("change", aboutPreset);
$("#btn-load-preset").addEventListener("click", loadPreset);
$("#btn-compare-preset").addEventListener("click", comparePreset);
changes.querySelector(".at-primary").addEventListener("click", () => {
  changes.close();
  loadPreset();
});

// ---- saving and renaming ----------------------------------------------------------------------
const saver = $("#dlg-save");
let renamed = null; // the preset whose name is being changed; null: a new one is saved

function openSaver(item) {
  renamed = item;
  saver.querySelector("h2").textContent = text(item ? "train.rename_title" : "train.save_title");
  saver.querySelector(".at-dialog-help").hidden = Boolean(item);
  saver.querySelector(".at-problem").hidden = true;
  $("#btn-preset-replace").hidden = true;
  $("#preset-name").value = item?.title ?? "";
  $("#preset-about").value = item?.description ?? "";
  saver.showModal();
  $("#preset-name").focus();
}

$("#btn-save-preset").addEventListener("click", () => openSaver(null));
$("#btn-rename-preset").addEventListener("click", () => openSaver(chosenPreset()));
saver.querySelector("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const name = $("#preset-name").value.trim();
  const about = $("#preset-about").value.trim();
  const replace = event.submitter?.id === "btn-preset-replace";
  const reply = renamed
    ? await server.rename_preset({ id: renamed.id, name, about })
    : await server.save_preset({ name, about, replace, values: form.values() });
  $("#btn-preset-replace").hidden = !reply.taken;
  if (reply.problems.length) {
    const line = saver.querySelector(".at-problem");
    line.hidden = false;
    line.textContent = said(reply.problems);
    return;
  }
  saver.close();
  presets = reply.presets;
  if (!renamed || preset === renamed.id) preset = reply.id;
  drawPresets();
  if (!renamed) form.base(form.values());
  toast(text("train.preset_saved", { name }));
  look();
});

$("#btn-delete-preset").addEventListener("click", async () => {
  const gone = chosenPreset();
  const reply = await ask("delete_preset", { id: gone.id });
  if (!reply) return;
  const was = preset;
  presets = reply.presets;
  if (preset === gone.id) preset = "";
  drawPresets();
  toast(text("train.preset_deleted", { name: gone.title }), false, async () => {
    const back = await ask("restore_preset", { trashed: reply.trashed });
    if (!back) return;
    presets = back.presets;
    preset = was;
    drawPresets();
  });
});

$("#btn-export-preset").addEventListener("click", async () => {
  const reply = await ask("export_preset", { id: chooser.value });
  if (reply) download(reply.name, reply.text);
});
$("#btn-export-settings").addEventListener("click", async () => {
  const reply = await ask("export_preset", { values: form.values() });
  if (reply) download(reply.name, reply.text);
});

// A menu closes when something in it was chosen, and when one clicks elsewhere.
document.addEventListener("click", (event) => {
  for (const menu of element.querySelectorAll("details.at-menu[open]")) {
    if (!menu.contains(event.target) || event.target.closest(".at-menu button")) menu.open = false;
  }
});
element.addEventListener("keydown", (event) => {
  if (event.key === "Escape") for (const menu of element.querySelectorAll("details.at-menu[open]")) menu.open = false;
});

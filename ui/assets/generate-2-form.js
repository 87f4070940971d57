// The Generate page, part 2 of 9: the form, drawn from the server's table of fields.
const FOLDED = ["image", "hires", "guide", "variation", "files", "more"]; // groups that are closed at first
const fields = new Map(); // name -> {field, box, read(), fill(value)}
let defaults = {};
let given = {}; // name of a given picture -> {name, url, size}
let lastSeed = null;

function plainInput(field, type) {
  const input = node(type === "textarea" ? "textarea" : "input");
  if (type !== "textarea") input.type = type;
  input.id = "ge-f-" + field.name;
  input.spellcheck = false;
  return input;
}

const READ = JSON.parse(props.read); // where the docs tell more
const given_ = (value) => (value === "" || typeof value === "object" ? null : value);

// A label with what stands behind it. What is said below a field as well is "<name>_info" among the texts.
function headOf(field, label) {
  const { low: min, high: max, choices = [] } = field;
  const usual = choices.find(([value]) => value === field.default)?.[1] ?? given_(field.default);
  const help = words["gen." + field.name + "_info"] ?? words["gen.help_" + field.name];
  return withAbout(label, { help, min, max, fallback: usual, read: READ });
}

function labelled(field, input, ...after) {
  const label = node("label", "", text(field.name));
  label.htmlFor = input.id;
  const box = node("div", "ge-field", headOf(field, label), input, ...after);
  const info = words["gen." + field.name + "_info"];
  if (info) box.append(node("small", "", info));
  return box;
}

const makers = {
  prompt(field) {
    const input = plainInput(field, "textarea");
    input.rows = field.name === "prompt" ? 4 : 2;
    input.spellcheck = true;
    return { box: labelled(field, input), read: () => input.value, fill: (value) => (input.value = value ?? "") };
  },
  number(field) {
    const input = plainInput(field, "number");
    Object.assign(input, { min: field.low, max: field.high, step: field.step });
    return { box: labelled(field, input), read: () => (input.value === "" ? null : Number(input.value)), fill: (value) => (input.value = value ?? "") };
  },
  seed(field) {
    const input = plainInput(field, "text");
    input.placeholder = text("seed_random");
    input.inputMode = "numeric";
    const again = button("at-quiet", text("seed_again"), () => { if (lastSeed != null) { input.value = lastSeed; changed(); } });
    const random = button("at-quiet", text("seed_random"), () => { input.value = ""; changed(); });
    const more = field.name === "seed" ? [node("div", "ge-inline", random, again)] : [];
    return { box: labelled(field, input, ...more), read: () => input.value.trim(), fill: (value) => (input.value = value ?? "") };
  },
  choice(field) {
    const input = node("select");
    input.id = "ge-f-" + field.name;
    input.append(...field.choices.map(([value, label]) => new Option(label, value)));
    return { box: labelled(field, input), read: () => input.value, fill: (value) => (input.value = value) };
  },
  flag(field) {
    const input = plainInput(field, "checkbox");
    const label = node("label", "", text(field.name));
    label.htmlFor = input.id;
    const box = node("div", "ge-field ge-flag", input, headOf(field, label));
    const info = words["gen." + field.name + "_info"];
    if (info) box.append(node("small", "", info));
    return { box, read: () => input.checked, fill: (value) => (input.checked = !!value) };
  },
  file(field) {
    const input = plainInput(field, "text");
    if (field.name === "model") input.setAttribute("list", "ge-models");
    else input.placeholder = text(field.kind === "folder" ? "none" : "vae_own");
    const box = labelled(field, input);
    withBrowse(input, { label: text(field.name), key: "network_weights", folder: field.kind === "folder", either: field.name === "model" });
    return { box, read: () => input.value, fill: (value) => (input.value = value ?? "") };
  },
};
makers.whole = makers.number;
makers.folder = makers.file;

// A place for a picture: dropped, chosen, or sent from somewhere else on the page.
function pictureSlot(onChange, label) {
  let name = "";
  const image = node("img");
  image.alt = "";
  const file = node("input");
  file.type = "file";
  file.accept = "image/*";
  file.className = "at-sr";
  file.tabIndex = -1;
  file.setAttribute("aria-label", label);
  const hint = node("span", "", text("picture_hint"));
  const choose = button("ge-choose", "", () => file.click());
  choose.append(image, hint);
  choose.setAttribute("aria-label", label);
  const remove = button("at-quiet", text("picture_remove"), () => set(""));
  const box = node("div", "ge-slot", choose, file, remove);
  function set(wanted, facts) {
    name = wanted;
    if (facts) given[wanted] = facts;
    const known = given[name];
    image.hidden = remove.hidden = !known;
    hint.hidden = !!known;
    if (known) image.src = known.url;
    else name = "";
    onChange(name);
  }
  async function take(source) {
    if (!source?.type?.startsWith("image/")) return toast(text("no_picture_file"), true);
    const reply = await tell("give_picture", { picture: await readFile(source) });
    if (reply.given) set(reply.given.name, reply.given);
  }
  file.addEventListener("change", () => { take(file.files[0]); file.value = ""; });
  box.addEventListener("dragover", (event) => { event.preventDefault(); event.stopPropagation(); box.classList.add("ge-over"); });
  box.addEventListener("dragleave", () => box.classList.remove("ge-over"));
  box.addEventListener("drop", (event) => {
    event.preventDefault();
    event.stopPropagation();
    box.classList.remove("ge-over");
    take(event.dataTransfer.files[0]);
  });
  set("");
  return { box, read: () => name, set };
}

makers.picture = (field) => {
  const slot = pictureSlot((name) => { pictureChanged(name); changed(); }, text(field.name));
  const box = node("div", "ge-field", slot.box);
  return { box, read: slot.read, fill: (value) => slot.set(value ?? ""), slot };
};
makers.mask = (field) => {
  let name = "";
  const paint = button("at-btn", text("mask_paint"), () => paintMask());
  const clear = button("at-quiet", text("mask_none"), () => fill(""));
  const image = node("img", "ge-mask-small");
  image.alt = text("mask");
  const box = node("div", "ge-field ge-mask-row", paint, image, clear);
  box.id = "ge-mask-row";
  function fill(value, facts) {
    if (facts) given[value] = facts;
    name = given[value] ? value : "";
    image.hidden = clear.hidden = !name;
    if (name) image.src = given[name].url;
    changed();
  }
  return { box, read: () => name, fill };
};

// Another picture has another mask, or none.
function pictureChanged(name) {
  const row = fields.get("mask");
  if (!row) return;
  row.box.hidden = !name;
  row.fill("");
}

function drawForm(list, values) {
  const groups = new Map();
  for (const field of list) {
    defaults[field.name] = field.default;
    const made = makers[field.kind](field);
    made.field = field;
    made.box.dataset.field = field.name;
    fields.set(field.name, made);
    if (!groups.has(field.group)) groups.set(field.group, []);
    groups.get(field.group).push(made.box);
  }
  const boxes = [...groups].map(([name, rows]) => {
    if (!FOLDED.includes(name)) return node("div", "ge-group ge-g-" + name, ...rows);
    const box = node("details", "ge-fold", node("summary", "", text("g_" + name)), node("div", "ge-group ge-g-" + name, ...rows));
    box.dataset.group = name;
    return box;
  });
  $("#ge-fields").replaceChildren(...boxes);
  fillForm(values);
  for (const fold of $$(".ge-fold")) fold.open = fold.classList.contains("ge-used") && fold.dataset.group !== "files";
}

let filling = false;
function fillForm(values) {
  filling = true;
  const mask = values.mask;
  for (const [name, row] of fields) if (name in values && name !== "mask") row.fill(values[name]);
  if (mask !== undefined) fields.get("mask").fill(mask);
  fields.get("mask").box.hidden = !fields.get("image").read();
  filling = false;
  changed();
}
const readForm = () => Object.fromEntries([...fields].map(([name, row]) => [name, row.read()]));

const isPlain = (value, plain) => JSON.stringify(value ?? "") === JSON.stringify(plain ?? "") || (value ?? "") === (plain ?? "");
// Folded groups that change what is drawn are marked, so that nothing acts unseen.
function markUsed(values) {
  for (const fold of $$(".ge-fold")) {
    const rows = [...fold.querySelectorAll("[data-field]")].map((box) => box.dataset.field);
    const telling = { hires: ["hires"], image: ["image"], variation: ["variation_strength"] }[fold.dataset.group] ?? rows;
    fold.classList.toggle("ge-used", telling.some((name) => !isPlain(values[name], defaults[name])));
  }
}
const keep = later(() => ask("keep_form", { values: readForm() }), 700);
function changed() {
  if (filling || !fields.size) return;
  markUsed(readForm());
  keep();
}
function markWrong(problems) {
  for (const [name, row] of fields) {
    const wrong = problems.some((problem) => problem.key === name);
    row.box.classList.toggle("ge-wrong", wrong);
    const fold = wrong && row.box.closest("details");
    if (fold) fold.open = true;
  }
}
$(".ge-form").addEventListener("input", changed);
$(".ge-form").addEventListener("change", changed);

function drawFiles({ models, loras }) {
  $("#ge-models").replaceChildren(...models.map((path) => new Option(path.split(/[\\/]/).pop(), path)));
  $("#ge-loras").replaceChildren(...loras.map(({ label, path }) => new Option(label, path)));
}

// ---- settings out of a picture ------------------------------------------------------------------
function takeSettings(reply) {
  if (!reply.values) return;
  fillForm(reply.values);
  views.show("draw");
  toast([text("settings_taken"), ...reply.notes].join("\n"));
}
const HEAD_BYTES = 2_000_000; // the text stands before the pixels
element.addEventListener("dragover", (event) => {
  if (![...event.dataTransfer.types].includes("Files")) return;
  event.preventDefault();
  $(".ge").classList.add("ge-dropping");
});
element.addEventListener("dragleave", (event) => event.relatedTarget || $(".ge").classList.remove("ge-dropping"));
element.addEventListener("drop", async (event) => {
  event.preventDefault();
  $(".ge").classList.remove("ge-dropping");
  const file = event.dataTransfer.files[0];
  if (file) takeSettings(await tell("read_settings", { picture: await readFile(file.slice(0, HEAD_BYTES)) }));
});

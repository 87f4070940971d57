// The Generate page, part 3 of 9: rows of networks and of guides.
function rowField(input, label) {
  input.setAttribute("aria-label", label);
  return input;
}
function smallNumber(value, label, step = 0.05) {
  const input = rowField(node("input"), label);
  Object.assign(input, { type: "number", step, value: value ?? "", title: label, placeholder: label });
  return input;
}
function pathInput(value, label, list) {
  const input = rowField(node("input"), label);
  Object.assign(input, { type: "text", value: value ?? "", spellcheck: false, placeholder: label, title: value ?? "" });
  input.setAttribute("list", list);
  input.addEventListener("change", () => (input.title = input.value));
  return input;
}
const numberOf = (input) => (input.value === "" ? null : Number(input.value));

// A field that holds a list of rows; `make` gives {box, read()} of one.
function rowsField(field, make, addLabel) {
  let rows = [];
  const list = node("div", "ge-rows");
  function add(value = {}) {
    const row = make(value);
    const remove = button("ge-remove", "\u00d7", () => {
      rows = rows.filter((other) => other !== row);
      row.box.remove();
      changed();
    });
    remove.setAttribute("aria-label", text("row_remove"));
    row.box.append(remove);
    rows.push(row);
    list.append(row.box);
    return row;
  }
  const more = button("at-quiet", addLabel, () => { add().box.querySelector("input").focus(); changed(); });
  const box = node("fieldset", "ge-field", headOf(field, node("span", "", text(field.name))), list, more);
  box.setAttribute("aria-label", text(field.name));
  const fill = (values) => {
    rows = [];
    list.replaceChildren();
    for (const value of values ?? []) add(value);
  };
  return { box, read: () => rows.map((row) => row.read()).filter((value) => value.path), fill, add };
}

makers.loras = (field) => rowsField(field, (value) => {
  const path = pathInput(value.path, text("lora_path"), "ge-loras");
  const strength = smallNumber(value.strength ?? 1, text("strength"));
  const words_ = smallNumber(value.text_strength, text("text_strength"));
  const box = node("div", "ge-row ge-lora", withBrowse(path, { label: text("lora_path"), key: "network_weights" }), strength, words_);
  return { box, read: () => ({ path: path.value.trim(), strength: numberOf(strength), text_strength: numberOf(words_) }) };
}, text("lora_add"));

makers.guides = (field) => rowsField(field, (value) => {
  const path = pathInput(value.path, text("guide_path"), "ge-loras");
  const strength = smallNumber(value.strength ?? 1, text("strength"));
  const ratio = smallNumber(value.ratio ?? 1, text("ratio"));
  const slot = pictureSlot(() => changed(), text("guide_image"));
  slot.set(value.image ?? "");
  const box = node("div", "ge-row ge-guide", withBrowse(path, { label: text("guide_path"), key: "network_weights" }), strength, ratio, slot.box);
  return { box, slot, read: () => ({ path: path.value.trim(), image: slot.read(), strength: numberOf(strength), ratio: numberOf(ratio) }) };
}, text("guide_add"));

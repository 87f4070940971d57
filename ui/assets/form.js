// Messages begin small, as they may stand within a sentence. Names of files and options stay as they are.
const capital = (line) => (/^[a-z]+(?=[\s,:;'-]|$)/.test(line ?? "") && document.documentElement.lang.startsWith("en") ? line[0].toUpperCase() + line.slice(1) : line ?? "");

// A settings form drawn from a schema. Everything here happens in the browser: search, views,
// hiding by rule, marks, resets and checks of a single value. The server is asked only about the
// whole (see train.js).
//
// It stands after about.js.
//
// makeForm(root, schema, text, onChange, onBrowse) -> {values, set, base, problems, jump, family, recent, flush}
//   schema: {first: [key], groups: [{id, title, help, options: [{key, type, default, read, ...}]}],
//            docs: {page: title}}; read is the page of the docs, with its anchor, that explains the option
//   text(key, parts): a text of the page
//   onBrowse(spec, value): a promise of the path that was chosen for a field, or of null
//   onChange(values): called after edits with {key: value} of all that differs from its default
function makeForm(root, schema, text, onChange, onBrowse = null) {
  const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;
  const OTHER = "\u0000other"; // the choice of an open list that lets one type
  const METHOD = "training_method"; // what is trained decides what applies
  const rows = new Map(); // key -> {spec, row, input, value, problem, list: the choices while one types}
  let family = null;
  let view = "basic";
  let query = "";
  let timer = 0;
  const cards = makeAbout(root, text);

  const make = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === true) node.setAttribute(name, "");
      else if (value !== false && value != null) node.setAttribute(name, value);
    }
    node.append(...children.filter((child) => child != null));
    return node;
  };

  // ---- values -------------------------------------------------------------------------------
  const isNumber = (spec) => spec.kind === "int" || spec.kind === "float" || spec.kind === "steps";
  const blank = (value) => value === null || value === undefined || value === "";

  function same(spec, a, b) {
    if (blank(a) && blank(b)) return true;
    if (blank(a) || blank(b)) return false;
    if (isNumber(spec) && NUMBER.test(a) && NUMBER.test(b)) return Number(a) === Number(b);
    return String(a) === String(b);
  }

  // What stands in a field -> its value: 0 stays 0, empty stays empty, and what is not a number
  // stays as typed so that the message can quote it.
  function read(spec, input) {
    if (spec.kind === "bool") return input.checked;
    let typed = input.value;
    if (spec.path) typed = typed.trim().replace(/^"(.*)"$/, "$1");
    if (spec.kind === "choice") return spec.choices.find((choice) => String(choice) === typed) ?? (typed || null);
    if (isNumber(spec)) {
      typed = typed.trim().replace(",", ".");
      if (typed === "") return null;
      return NUMBER.test(typed) && !unsafe(spec, typed) ? Number(typed) : typed;
    }
    return typed.trim() === "" && spec.optional ? null : typed;
  }

  // Whole numbers that a browser would round travel as text.
  const unsafe = (spec, typed) => spec.kind === "int" && !Number.isSafeInteger(Number(typed));

  const shown = (spec, value) => (blank(value) ? "" : String(value));

  function write(field, value) {
    if (field.list) chooseAgain(field);
    const { spec, input } = field;
    field.value = value;
    if (spec.kind === "bool") input.checked = Boolean(value);
    else if (input.value !== shown(spec, value)) {
      if (spec.kind === "choice" && ![...input.options].some((o) => o.value === shown(spec, value))) {
        input.append(make("option", { value: shown(spec, value) }, shown(spec, value)));
      }
      input.value = shown(spec, value);
    }
    mark(field);
  }

  const effective = (key) => {
    const field = rows.get(key);
    return blank(field.value) ? field.spec.default : field.value;
  };

  const changed = (field) =>
    // An empty number field means its default, never zero.
    !(isNumber(field.spec) && blank(field.value)) && !same(field.spec, field.value, field.spec.default);

  // The preset that the form was filled from; what is one's own work is never measured by it.
  let base = null;
  const baseOf = (spec) => base[spec.key] ?? spec.default;
  const movedFromBase = ({ spec, value }) =>
    base !== null && !schema.own.includes(spec.key) && !same(spec, isNumber(spec) && blank(value) ? spec.default : value, baseOf(spec));
  const spelled = (spec, value) => (spec.kind === "bool" ? text(value ? "form.on" : "form.off") : shown(spec, value) || text("form.empty"));

  function values() {
    const found = {};
    // What is not for the method waits in its field until a method has a use for it.
    for (const [key, field] of rows) if (changed(field) && ofMethod(field.spec)) found[key] = field.value;
    return found;
  }

  // ---- checks of one value ------------------------------------------------------------------
  function complaint(spec, value) {
    if (!isNumber(spec) || blank(value)) return "";
    if (spec.kind === "steps" && /^\d+(\.\d+)?\s*%$/.test(value)) return "";
    if (typeof value === "string" && !NUMBER.test(value)) return text("form.not_number", { value });
    const number = Number(value);
    if (spec.kind === "int" && !Number.isInteger(number)) return text("form.not_whole", { value });
    const { min, max } = spec;
    const bad = (min != null && (spec.min_open ? number <= min : number < min)) || (max != null && (spec.max_open ? number >= max : number > max));
    return bad ? text("form.out_of_range", { value, range: rangeText(spec) }) : "";
  }

  function rangeText({ min, max, min_open, max_open }) {
    const a = min == null ? "" : text(min_open ? "form.above" : "form.from", { value: brief(min) });
    const b = max == null ? "" : text(max_open ? "form.below" : "form.to", { value: brief(max) });
    return [a, b].filter(Boolean).join(" ");
  }

  const brief = (n) => (Math.abs(n) >= 1e9 ? n.toExponential(1) : String(n));

  // ---- drawing ------------------------------------------------------------------------------
  function drawInput(spec) {
    const id = "opt-" + spec.key;
    const common = { id, name: spec.key, autocomplete: spec.secret ? "new-password" : "off", spellcheck: spec.multiline ? null : "false",
      "aria-describedby": `${id}-problem ${id}-help` };
    if (spec.kind === "bool") return make("input", { ...common, type: "checkbox", role: "switch" });
    if (spec.multiline) return make("textarea", { ...common, rows: 3, placeholder: spec.placeholder });
    if (spec.kind === "choice") {
      const select = make("select", { ...common, class: "at-select" });
      if (spec.optional) select.append(make("option", { value: "" }, text("form.automatic")));
      for (const [index, choice] of spec.choices.entries()) {
        const lack = spec.lacks[choice];
        const title = spec.choice_titles[index] ?? String(choice);
        select.append(make("option", { value: choice, disabled: Boolean(lack) }, lack ? `${title} (${lack})` : title));
      }
      if (spec.open) select.append(make("option", { value: OTHER }, text("form.other")));
      return select;
    }
    const hint = spec.placeholder ?? (blank(spec.default) ? (spec.optional && isNumber(spec) ? text("form.automatic") : "") : String(spec.default));
    return make("input", { ...common, type: spec.secret ? "password" : "text", placeholder: hint,
      inputmode: isNumber(spec) ? "decimal" : null, list: spec.suggestions.length || spec.path ? id + "-list" : null });
  }

  // An open list gives place to a text field, and comes back when that is emptied or filled by others.
  function typeOther(field) {
    const { id, name } = field.input;
    const input = make("input", { id, name, type: "text", autocomplete: "off", spellcheck: "false", placeholder: "module.Class", "aria-describedby": field.input.getAttribute("aria-describedby") });
    field.list = field.input;
    field.list.replaceWith(input);
    field.input = input;
    input.focus();
  }

  function chooseAgain(field) {
    field.input.replaceWith(field.list);
    field.input = field.list;
    field.list = null;
  }

  function drawRow(spec) {
    const id = "opt-" + spec.key;
    const input = drawInput(spec);
    const label = make("label", { for: id }, spec.label);
    const about = cards.button(spec.label);
    const reset = make("button", { type: "button", class: "at-reset", hidden: true, "aria-label": text("form.reset", { label: spec.label }), title: text("form.reset_to", { value: spelled(spec, spec.default) }), "data-do": "reset" }, "\u21ba");
    const back = make("button", { type: "button", class: "at-back", hidden: true, "aria-label": text("form.back", { label: spec.label }), "data-do": "back" }, "\u2936");
    const unit = spec.unit && spec.kind !== "bool" ? make("span", { class: "at-unit", "aria-hidden": "true" }, spec.unit) : null;
    const paste = spec.path && navigator.clipboard?.readText ? make("button", { type: "button", class: "at-paste", "data-do": "paste", "aria-label": text("form.paste_into", { label: spec.label }) }, text("form.paste")) : null;
    const browse = spec.path ? make("button", { type: "button", class: "at-paste", "data-do": "browse", "aria-label": text("form.browse_for", { label: spec.label }) }, text("form.browse")) : null;
    const list = spec.suggestions.length || spec.path ? make("datalist", { id: id + "-list" }, ...spec.suggestions.map((value) => make("option", { value }))) : null;
    const head = make("div", { class: "at-label" }, label, about, back, reset);
    const control = make("div", { class: "at-control" }, input, unit, browse, paste, list);
    const row = make("div", { class: "at-field at-" + spec.kind + (spec.multiline || spec.path || spec.choice_titles.length ? " at-wide" : ""), "data-key": spec.key },
      ...(spec.kind === "bool" ? [make("div", { class: "at-switch" }, input, head)] : [head, control]),
      make("p", { class: "at-help", id: id + "-help" }, spec.lacks.true ? `${spec.help} (${spec.lacks.true})` : spec.help),
      spec.path ? make("p", { class: "at-resolved", hidden: true }) : null,
      make("p", { class: "at-problem", id: id + "-problem", role: "alert", hidden: true }));
    const field = { spec, row, input, value: spec.default };
    rows.set(spec.key, field);
    return row;
  }

  function drawSection(id, title, help, specs) {
    const count = make("span", { class: "at-count", hidden: true });
    return make("section", { class: "at-section", id: "sec-" + id, "data-section": id, "aria-label": title },
      make("header", {}, make("h2", {}, title, count), make("p", {}, help)),
      make("div", { class: "at-grid" }, ...specs.map(drawRow)));
  }

  // An option says only what differs from these.
  const plain = { optional: false, unit: "", choices: [], choice_titles: [], open: false, lacks: {}, suggestions: [], path: null, show_if: [], families: [], methods: [], note: "", english: "", read: "", multiline: false };
  const fill = (group) => (option) => ({ ...plain, ...option, kind: option.type, section: group.id, default: Array.isArray(option.default) ? option.default.join(" ") : option.default });
  const fields = schema.groups.flatMap((group) => group.options.map(fill(group)));
  const byKey = new Map(fields.map((spec) => [spec.key, spec]));
  const first = new Set(schema.first);
  const tools = root.querySelector(".at-tools");
  const index = root.querySelector(".at-index");
  const place = root.querySelector(".at-sections");
  place.append(drawSection("first", text("form.first"), text("form.first_help"), schema.first.map((key) => byKey.get(key))));
  for (const section of schema.groups) {
    const specs = fields.filter((spec) => spec.section === section.id && !first.has(spec.key));
    if (!specs.length) continue;
    place.append(drawSection(section.id, section.title, section.help, specs));
    index.append(make("a", { href: "#sec-" + section.id, "data-go": section.id }, section.title));
  }
  const nothing = make("p", { class: "at-nothing", hidden: true }, text("form.nothing"));
  place.append(nothing);

  // ---- rules, marks, views ------------------------------------------------------------------
  const ofMethod = ({ methods }) => !methods.length || methods.includes(effective(METHOD));
  const applies = (spec) => (!family || !spec.families.length || spec.families.includes(family)) && ofMethod(spec) &&
    spec.show_if.every(([key, allowed]) => !rows.has(key) || allowed.includes(effective(key)));

  const words = new Map();
  const matches = (spec) => {
    if (!words.has(spec.key)) words.set(spec.key, [spec.key, spec.key.replaceAll("_", " "), spec.label, spec.english, spec.help, spec.note].join("\n").normalize("NFKC").toLowerCase());
    return query.split(/\s+/).every((word) => words.get(spec.key).includes(word));
  };

  function visible(field) {
    if (field.forced) return true;
    if (!applies(field.spec)) return false;
    if (query) return matches(field.spec);
    if (view === "all") return true;
    return view === "changed" ? changed(field) : first.has(field.spec.key);
  }

  function mark(field) {
    const is = changed(field);
    field.row.classList.toggle("at-changed", is);
    field.row.querySelector(".at-reset").hidden = !is;
    const moved = movedFromBase(field);
    const back = field.row.querySelector(".at-back");
    field.row.classList.toggle("at-moved", moved);
    back.hidden = !moved;
    if (moved) back.title = text("form.back_to", { value: spelled(field.spec, baseOf(field.spec)) });
  }

  function arrange() {
    let any = false;
    for (const field of rows.values()) field.row.hidden = !visible(field);
    for (const section of place.querySelectorAll(".at-section")) {
      const shownRows = section.querySelectorAll(".at-field:not([hidden])").length;
      section.hidden = !shownRows;
      any = any || shownRows > 0;
      const count = section.querySelectorAll(".at-field.at-changed:not([hidden])").length;
      const badge = section.querySelector(".at-count");
      badge.hidden = !count || view === "changed";
      badge.textContent = text("form.changed_count", { n: count });
      const link = index.querySelector(`[data-go="${section.dataset.section}"]`);
      if (link) link.hidden = section.hidden;
    }
    nothing.hidden = any;
    index.hidden = view !== "all" || Boolean(query);
    root.dataset.view = query ? "search" : view;
    const beyond = [...rows.values()].filter((f) => changed(f) && ofMethod(f.spec)).length;
    for (const button of tools.querySelectorAll("[data-view]")) {
      button.setAttribute("aria-pressed", String(button.dataset.view === view && !query));
      if (button.dataset.view === "changed") button.querySelector("b").textContent = beyond || "";
    }
  }

  function show(name) {
    view = name;
    query = "";
    tools.querySelector("input").value = "";
    for (const field of rows.values()) field.forced = false;
    arrange();
  }

  // ---- problems -----------------------------------------------------------------------------
  function complain(field, message) {
    const place = field.row.querySelector(".at-problem");
    if (field.problem === message) return;
    field.problem = message;
    place.textContent = message;
    place.hidden = !message;
    field.row.classList.toggle("at-bad", Boolean(message));
    field.input.setAttribute("aria-invalid", String(Boolean(message)));
  }

  // Messages come as half sentences.
  const sentence = (part) => capital(part) + (/[.!?:。！？：]$/.test(part) ? "" : text("form.full_stop"));

  function problems(list) {
    const said = new Map();
    for (const item of list) {
      if (!rows.has(item.key)) continue;
      const words = [item.what, item.why, item.next].filter(Boolean).map(sentence).join(" ");
      said.set(item.key, said.has(item.key) ? said.get(item.key) + " " + words : words);
    }
    for (const [key, field] of rows) complain(field, said.get(key) ?? complaint(field.spec, field.value));
  }

  function jump(key) {
    const field = rows.get(key);
    if (!field) return;
    if (!visible(field)) show("all");
    if (!visible(field)) field.forced = true;
    arrange();
    field.row.scrollIntoView({ block: "center", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
    field.input.focus({ preventScroll: true });
  }

  // ---- the words behind a label -------------------------------------------------------------
  function about(button, spec) {
    const facts = [
      [text("form.real_name"), make("code", {}, spec.key)],
      spec.unit && [text("form.unit"), spec.unit],
      rangeText(spec) && [text("form.range"), rangeText(spec)],
      [text("form.default"), spelled(spec, spec.default)],
      base !== null && !schema.own.includes(spec.key) && [text("train.preset"), spelled(spec, baseOf(spec))],
    ].filter(Boolean);
    const page = schema.docs[spec.read.split("#")[0]];
    const read = [page && [spec.read, page], ["options#" + spec.key, text("form.all_options")]].filter(Boolean);
    cards.toggle(button, { words: [spec.help, spec.note], facts, read });
  }

  // ---- events -------------------------------------------------------------------------------
  function flush() {
    clearTimeout(timer);
    timer = 0;
    onChange(values());
  }

  // A half-typed path is not worth a look at the disk.
  function edited(field) {
    mark(field);
    arrangeSoon();
    clearTimeout(timer);
    timer = setTimeout(flush, field.spec.path ? 900 : 250);
  }

  let frame = 0;
  const arrangeSoon = () => {
    frame ||= requestAnimationFrame(() => { frame = 0; arrange(); });
  };

  const fieldOf = (node) => rows.get(node.closest?.("[data-key]")?.dataset.key);

  root.addEventListener("input", (event) => {
    if (event.target.type === "search") {
      query = event.target.value.normalize("NFKC").trim().toLowerCase();
      return arrange();
    }
    const field = fieldOf(event.target);
    if (!field) return;
    if (event.target.value === OTHER) return typeOther(field);
    field.value = read(field.spec, field.input);
    field.typed = true;
    if (view === "changed") field.forced = true; // it stays while it is being edited
    if (field.problem) complain(field, complaint(field.spec, field.value));
    edited(field);
  });

  root.addEventListener("change", (event) => {
    const field = fieldOf(event.target);
    if (!field || event.target !== field.input) return;
    field.value = read(field.spec, field.input);
    field.typed = true;
    if (field.list && blank(field.value)) write(field, field.spec.default);
    if (field.spec.path || isNumber(field.spec)) field.input.value = shown(field.spec, field.value);
    complain(field, complaint(field.spec, field.value));
    mark(field);
    arrangeSoon();
    flush();
  });

  root.addEventListener("click", (event) => {
    const go = event.target.closest("[data-go]");
    if (go) {
      event.preventDefault();
      return place.querySelector("#sec-" + go.dataset.go).scrollIntoView({ block: "start", behavior: "smooth" });
    }
    const switched = event.target.closest(".at-tools [data-view]");
    if (switched) return show(switched.dataset.view);
    const button = event.target.closest("[data-do]");
    const field = button && fieldOf(button);
    if (!field) return;
    if (button.dataset.do === "about") about(button, field.spec);
    if (button.dataset.do === "reset" || button.dataset.do === "back") {
      write(field, button.dataset.do === "back" ? baseOf(field.spec) : field.spec.default);
      complain(field, "");
      field.input.focus();
      edited(field);
    }
    if (button.dataset.do === "browse") {
      onBrowse?.(field.spec, field.value).then((found) => {
        if (found == null) return;
        field.input.value = found;
        field.input.dispatchEvent(new Event("change", { bubbles: true }));
      });
    }
    if (button.dataset.do === "paste") {
      navigator.clipboard.readText().then((found) => {
        field.input.value = found.split("\n")[0];
        field.input.dispatchEvent(new Event("change", { bubbles: true }));
      }, () => field.input.focus());
    }
  });


  arrange();
  return {
    values,
    flush,
    jump,
    problems,
    show,
    // Set every field: what `next` lacks goes to its default. Nothing is reported back.
    set(next) {
      for (const [key, field] of rows) {
        field.forced = field.typed = false;
        write(field, next[key] ?? field.spec.default);
        complain(field, complaint(field.spec, field.value));
      }
      arrange();
    },
    // What fields are marked against: the values of a preset, or null for none.
    base(values) {
      base = values;
      for (const field of rows.values()) mark(field);
    },
    // What was typed since all fields were last set.
    typed: () => Object.fromEntries([...rows].filter(([, field]) => field.typed).map(([key, field]) => [key, field.value])),
    family(name) {
      if (name === family) return;
      family = name;
      arrange();
    },
    // {key: path}: what a path means on the server, shown where it differs from what was typed.
    resolved(found) {
      for (const [key, field] of rows) {
        const line = field.row.querySelector(".at-resolved");
        if (!line) continue;
        line.hidden = !found[key] || found[key] === field.value;
        line.textContent = line.hidden ? "" : "\u2192 " + found[key];
      }
    },
    recent(found) {
      for (const [key, list] of Object.entries(found)) {
        const target = rows.has(key) && rows.get(key).row.querySelector("datalist");
        if (target) target.replaceChildren(...list.map((value) => make("option", { value })));
      }
    },
    // As if the value had been chosen in its field.
    choose(key, value) {
      const { input } = rows.get(key);
      input.value = value;
      input.dispatchEvent(new Event("change", { bubbles: true }));
    },
    spec: (key) => rows.get(key)?.spec,
  };
}

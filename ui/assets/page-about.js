// A "?" beside the label of a field. Stands after about.js; the page gives the words in props.fields.
const withAbout = (() => {
  const words = JSON.parse(props.fields);
  const text = (key, parts = {}) => (words[key] ?? key).replace(/\{(\w+)\}/g, (_, name) => parts[name] ?? "");
  const code = (name) => Object.assign(document.createElement("code"), { textContent: name });
  const bound = (key, value) => (value == null ? "" : text(key, { value }));
  const spelled = (value) => (typeof value === "boolean" ? text(value ? "form.on" : "form.off") : String(value));
  const given = (value) => value != null && value !== "" && !(Array.isArray(value) && !value.length);
  let cards = null;
  // label: the field's, in a page already or not; its new frame is given back.
  // known: help, name of the option, min, max, default, and read: a page of the docs with its title.
  return (label, { help = "", name = "", min = null, max = null, fallback = null, read }) => {
    cards ??= makeAbout(element.firstElementChild, text);
    const button = cards.button(label.textContent);
    const range = [bound("form.from", min), bound("form.to", max)].filter(Boolean).join(" ");
    const facts = [
      name && [text("form.real_name"), code(name)],
      range && [text("form.range"), range],
      given(fallback) && [text("form.default"), spelled(fallback)],
    ].filter(Boolean);
    button.addEventListener("click", () => cards.toggle(button, { words: [help], facts, read: [read] }));
    const head = document.createElement("div");
    head.className = "at-label";
    if (label.parentNode) label.replaceWith(head);
    head.append(label, button);
    return head;
  };
})();

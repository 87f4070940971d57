// The card behind a label: a "?" beside it tells what a field does, its real name, what it may be, and where the
// docs go on. Used by the settings form and, through page-about.js, by the pages of one form each.
//
// makeAbout(root, text) -> {button, toggle, close}
//   root: what the card lies in; it is positioned, and no part of what scrolls in it.
//   text(key, parts): a text of the page
function makeAbout(root, text) {
  const make = (tag, attributes, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  };
  const card = make("div", { class: "at-card-about", role: "note", hidden: "" });
  root.append(card);
  let open = null;

  function close() {
    open?.setAttribute("aria-expanded", "false");
    open = null;
    card.hidden = true;
  }

  const button = (label) =>
    make("button", { type: "button", class: "at-about", "aria-label": text("form.about", { label }), "aria-expanded": "false", "data-do": "about" }, "?");

  // The docs open beside the page, which keeps what is typed into it.
  const link = ([place, words]) => make("a", { href: "./docs/" + place, target: "atelier-docs" }, words);

  // words: sentences. facts: [[name, text or node]]. read: [[page of the docs, its title]].
  function toggle(pressed, { words, facts, read }) {
    if (open === pressed) return close();
    close();
    const links = read.flatMap((one, place) => [place ? " \u00b7 " : " ", link(one)]);
    card.replaceChildren(...words.filter(Boolean).map((line) => make("p", {}, line)),
      make("dl", {}, ...facts.flatMap(([name, fact]) => [make("dt", {}, name), make("dd", {}, fact)])),
      make("p", { class: "at-read-on" }, text("form.read_on"), ...links));
    // It stands behind its button in the order of the keyboard, so that its links are the next to be reached.
    pressed.closest(".at-label").after(card);
    card.hidden = false;
    const frame = root.getBoundingClientRect();
    const spot = pressed.getBoundingClientRect();
    card.style.top = spot.bottom - frame.top + 6 + "px";
    card.style.left = Math.max(0, Math.min(spot.left - frame.left - 24, frame.width - card.offsetWidth)) + "px";
    open = pressed;
    pressed.setAttribute("aria-expanded", "true");
  }

  document.addEventListener("click", (event) => {
    if (open && !event.target.closest?.(".at-about, .at-card-about")) close();
  });
  root.addEventListener("keydown", (event) => event.key === "Escape" && close());
  return { button, toggle, close };
}

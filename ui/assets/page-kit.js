// What pages share: texts, elements, asking the server, telling problems, views behind tabs. It stands
// before a page's own parts. Texts from files are set as text, never as HTML.
// prefix: of its texts. root: its outermost element. detail: the text's key for what is folded away.
// always: gives what goes with every question to the server.
function pageKit({ prefix, root, detail = "detail", always = () => ({}) }) {
  const words = JSON.parse(props.texts);
  const text = (key, parts = {}) => (words[prefix + key] ?? key).replace(/\{(\w+)\}/g, (_, name) => parts[name] ?? "");
  const $ = (selector) => element.querySelector(selector);
  const $$ = (selector) => [...element.querySelectorAll(selector)];
  const node = (tag, className, ...children) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    made.append(...children.filter((child) => child != null && child !== ""));
    return made;
  };
  const button = (className, label, act) => {
    const made = node("button", className, label);
    made.type = "button";
    made.addEventListener("click", act);
    return made;
  };
  const count = (n) => Number(n).toLocaleString(document.documentElement.lang || undefined);
  const plural = (key, n, parts = {}) => text(key + (n === 1 ? "_one" : "_n"), { n: count(n), ...parts });
  // Messages begin small, as they may stand within a sentence. Names of files and options stay as they are.
  const capital = (line) => (/^[a-z]+(?=[\s,:;'-]|$)/.test(line ?? "") && document.documentElement.lang.startsWith("en") ? line[0].toUpperCase() + line.slice(1) : line ?? "");
  const sentence = (line) => capital(line) + (/[.!?\u3002\uff01\uff1f]$/.test(line) ? "" : ".");
  const later = (act, wait) => {
    let timer = 0;
    const soon = (...given) => {
      clearTimeout(timer);
      timer = setTimeout(() => act(...given), wait);
    };
    soon.cancel = () => clearTimeout(timer);
    return soon;
  };

  // ---- the server -------------------------------------------------------------------------------
  const lost = () => ({ problems: [{ what: text("no_answer") }], lost: true });
  async function ask(name, data = {}) {
    try {
      return (await server[name]({ ...always(), ...data })) ?? lost(); // nothing comes from a server that ends
    } catch {
      return lost();
    }
  }
  // The same, with problems told in a word at the foot of the page.
  async function tell(name, data = {}) {
    const reply = await ask(name, data);
    const lines = reply.problems.map((p) => [p.what, p.next].filter(Boolean).map(sentence).join(" "));
    if (lines.length) toast(lines.join("\n"), true);
    return reply;
  }

  // ---- problems ---------------------------------------------------------------------------------
  function problemItem(problem) {
    const item = node("li", "", node("strong", "", capital(problem.what)));
    for (const line of [problem.where, problem.why, problem.next]) if (line) item.append(node("span", "", capital(line)));
    if (problem.detail) item.append(node("details", "", node("summary", "", text(detail)), node("pre", "", problem.detail)));
    return item;
  }
  function drawProblems(box, problems) {
    const told = JSON.stringify(problems);
    if (box.dataset.told === told) return; // what a person has unfolded stays so
    box.dataset.told = told;
    box.hidden = !problems.length;
    box.replaceChildren(...problems.map(problemItem));
  }
  let toastTimer = 0;
  function toast(message, bad = false) {
    const box = $(".at-toast");
    // A dialog lies above the page, so what is said then must lie in it.
    ($("dialog[open]") ?? $(root)).append(box);
    box.replaceChildren(node("span", "", message));
    box.classList.toggle("at-bad", bad);
    box.hidden = false;
    clearTimeout(toastTimer);
    toastTimer = setTimeout(() => (box.hidden = true), bad ? 9000 : 5000);
  }

  // ---- views ------------------------------------------------------------------------------------
  // Tabs of the list `bar`, each with a pane `pane` + its name. `openers`: view -> what to do when it is
  // shown, while `ready` says so; each part of a page's script adds its own.
  function tabbed({ bar, pane, first, ready = () => true }) {
    const tabs = [...$(bar).querySelectorAll("button")];
    const views = { now: first, openers: {}, show };
    function show(name) {
      views.now = name;
      for (const tab of tabs) {
        const here = tab.dataset.tab === name;
        tab.setAttribute("aria-selected", String(here));
        tab.tabIndex = here ? 0 : -1;
        $(pane + tab.dataset.tab).hidden = !here;
        if (here) tab.scrollIntoView({ block: "nearest", inline: "nearest" });
      }
      if (ready()) views.openers[name]?.();
    }
    $(bar).addEventListener("click", (event) => event.target.dataset.tab && show(event.target.dataset.tab));
    $(bar).addEventListener("keydown", (event) => {
      const along = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!along) return;
      const next = tabs[(tabs.findIndex((tab) => tab.dataset.tab === views.now) + along + tabs.length) % tabs.length];
      next.focus();
      show(next.dataset.tab);
    });
    return views;
  }
  const pressed = (group, name, value) => {
    for (const other of group.querySelectorAll(`[data-${name}]`)) other.setAttribute("aria-pressed", String(other.dataset[name] === value));
  };
  const closing = (selector) => {
    for (const dialog of $$("dialog")) dialog.addEventListener("click", (event) => event.target.closest(selector) && dialog.close());
  };

  return { words, text, $, $$, node, button, count, plural, capital, later, ask, tell, drawProblems, toast, tabbed, pressed, closing };
}

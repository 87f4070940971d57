// The Generate page, part 1 of 9: helpers, views, problems, dialogs.
// `element`, `props` and `server` come from the page. Texts from files are set as text, never as HTML.
const words = JSON.parse(props.texts);
const text = (key, parts = {}) => (words["gen." + key] ?? key).replace(/\{(\w+)\}/g, (_, name) => parts[name] ?? "");
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
const capital = (line) => (line ? line[0].toUpperCase() + line.slice(1) : "");
const later = (act, wait) => {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => act(...given), wait);
  };
};

async function ask(name, data = {}) {
  try {
    return await server[name](data);
  } catch {
    return { problems: [{ what: text("no_answer") }], lost: true };
  }
}
// The same, with problems told in a word at the foot of the page.
async function tell(name, data = {}) {
  const reply = await ask(name, data);
  if (reply.problems.length) toast(reply.problems.map((p) => [p.what, p.next].filter(Boolean).map(capital).join(". ")).join("\n"), true);
  return reply;
}

function problemItem(problem) {
  const item = node("li", "", node("strong", "", capital(problem.what)));
  for (const line of [problem.where, problem.why, problem.next]) if (line) item.append(node("span", "", capital(line)));
  if (problem.detail) item.append(node("details", "", node("summary", "", text("detail")), node("pre", "", problem.detail)));
  return item;
}
function drawProblems(box, problems) {
  const told = JSON.stringify(problems);
  if (box.dataset.told === told) return;
  box.dataset.told = told;
  box.hidden = !problems.length;
  box.replaceChildren(...problems.map(problemItem));
}

let toastTimer = 0;
function toast(message, bad = false) {
  const box = $(".at-toast");
  // A dialog lies above the page, so what is said then must lie in it.
  ($("dialog[open]") ?? $(".ge")).append(box);
  box.replaceChildren(node("span", "", message));
  box.classList.toggle("at-bad", bad);
  box.hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => (box.hidden = true), bad ? 9000 : 5000);
}

for (const dialog of $$("dialog")) {
  dialog.addEventListener("click", (event) => event.target.closest(".ge-close") && dialog.close());
}

// ---- views --------------------------------------------------------------------------------------
const openers = {}; // view -> what to do when it is shown
let view = "draw";
function show(name) {
  view = name;
  for (const tab of $$(".ge-tabs button")) {
    const here = tab.dataset.tab === name;
    tab.setAttribute("aria-selected", String(here));
    tab.tabIndex = here ? 0 : -1;
    $("#ge-" + tab.dataset.tab).hidden = !here;
  }
  openers[name]?.();
}
$(".ge-tabs").addEventListener("click", (event) => event.target.dataset.tab && show(event.target.dataset.tab));
$(".ge-tabs").addEventListener("keydown", (event) => {
  const along = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!along) return;
  const tabs = $$(".ge-tabs button");
  const next = tabs[(tabs.findIndex((tab) => tab.dataset.tab === view) + along + tabs.length) % tabs.length];
  next.focus();
  show(next.dataset.tab);
});

const readFile = (file) => new Promise((done, failed) => {
  const reader = new FileReader();
  reader.addEventListener("load", () => done(reader.result));
  reader.addEventListener("error", () => failed(reader.error));
  reader.readAsDataURL(file);
});

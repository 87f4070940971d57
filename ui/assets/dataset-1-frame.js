// The Dataset page, part 1 of 8: helpers, opening a folder or file, views, undo and redo.
// `element`, `props` and `server` come from the page. All texts from files are set as text, never as HTML.
const words = JSON.parse(props.texts);
const text = (key, parts = {}) => (words["data." + key] ?? key).replace(/\{(\w+)\}/g, (_, name) => parts[name] ?? "");
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
const capital = (line) => (line ? line[0].toUpperCase() + line.slice(1) : "");
const later = (act, wait) => {
  let timer = 0;
  const soon = (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => act(...given), wait);
  };
  soon.cancel = () => clearTimeout(timer);
  return soon;
};

let path = ""; // the dataset that is open
let facts = null;

const problemItem = (problem) => {
  const item = node("li", "", node("strong", "", capital(problem.what)));
  for (const line of [problem.where, problem.why, problem.next]) if (line) item.append(node("span", "", capital(line)));
  if (problem.detail) item.append(node("details", "", node("summary", "", text("details")), node("pre", "", problem.detail)));
  return item;
};
const drawProblems = (box, problems) => {
  box.hidden = !problems.length;
  box.replaceChildren(...problems.map(problemItem));
};

// Every call names the dataset, so that two pages may have two of them open.
async function ask(name, data = {}) {
  try {
    return await server[name]({ path, ...data });
  } catch {
    return { problems: [{ what: text("no_answer") }], lost: true };
  }
}
// The same, with problems told in a word at the foot of the page.
async function tell(name, data = {}) {
  const reply = await ask(name, data);
  if (reply.problems.length) toast(reply.problems.map((p) => [p.what, p.next].filter(Boolean).map(capital).join(" ")).join("\n"), true);
  return reply;
}

let toastTimer = 0;
function toast(message, bad = false) {
  const box = $(".at-toast");
  // A dialog lies above the page, so what is said then must lie in it.
  ($("dialog[open]") ?? $(".ds")).append(box);
  box.replaceChildren(node("span", "", message));
  box.classList.toggle("at-bad", bad);
  box.hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => (box.hidden = true), bad ? 9000 : 5000);
}

// ---- views --------------------------------------------------------------------------------------
const openers = {}; // view -> what to do when it is shown; each part of the script adds its own
let view = "pictures";
function show(name) {
  view = name;
  for (const tab of $$(".ds-tabs button")) {
    const here = tab.dataset.tab === name;
    tab.setAttribute("aria-selected", String(here));
    tab.tabIndex = here ? 0 : -1;
    $("#pane-" + tab.dataset.tab).hidden = !here;
    if (here) tab.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
  if (facts) openers[name]?.();
}
$(".ds-tabs").addEventListener("click", (event) => event.target.dataset.tab && show(event.target.dataset.tab));
$(".ds-tabs").addEventListener("keydown", (event) => {
  const along = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!along) return;
  const tabs = $$(".ds-tabs button");
  const next = tabs[(tabs.findIndex((tab) => tab.dataset.tab === view) + along + tabs.length) % tabs.length];
  next.focus();
  show(next.dataset.tab);
});
const pressed = (group, name, value) => {
  for (const other of group.querySelectorAll("button")) other.setAttribute("aria-pressed", String(other.dataset[name] === value));
};

for (const dialog of $$("dialog")) {
  dialog.addEventListener("click", (event) => event.target.closest(".ds-close") && dialog.close());
}

// ---- opening ------------------------------------------------------------------------------------
const changedHooks = []; // called when pictures or captions of the open dataset have changed

async function openDataset(wanted, again = true) {
  const go = $("#ds-open");
  go.disabled = true;
  go.textContent = text("opening");
  const reply = await ask("open_dataset", { path: wanted, again });
  go.disabled = false;
  go.textContent = text("open");
  drawProblems($("#ds-problems"), reply.problems);
  if (reply.recent) drawRecent(reply.recent);
  if (!reply.facts) {
    if (!reply.lost) close();
    return;
  }
  const other = path !== reply.path;
  path = reply.path;
  $("#ds-resolved").hidden = reply.path === wanted;
  $("#ds-resolved").textContent = reply.path;
  drawFacts(reply.facts);
  $("#ds-empty").hidden = true;
  $("#ds-opened").hidden = false;
  $(".ds").dataset.path = path;
  for (const hook of changedHooks) hook(other);
  show(other ? "pictures" : view);
}

function close() {
  path = "";
  facts = null;
  delete $(".ds").dataset.path;
  $("#ds-opened").hidden = true;
  $("#ds-empty").hidden = false;
}

const drawRecent = (recent) => $("#ds-recent").replaceChildren(...recent.map((value) => new Option(value, value)));

function figure(label, value, more = "") {
  return node("div", "", node("dt", "", label), node("dd", "", value, more && node("small", "", more)));
}

function drawFacts(found) {
  facts = found;
  $(".ds-figures").replaceChildren(
    figure(text("fact_pictures"), count(found.pictures), [found.reg && text("fact_reg", { n: count(found.reg) }), found.held && text("fact_held", { n: count(found.held) })].filter(Boolean).join(", ")),
    figure(text("fact_captions"), count(found.captioned), found.pictures > found.captioned ? text("fact_without", { n: count(found.pictures - found.captioned) }) : ""),
    found.masked ? figure(text("fact_masks"), count(found.masked)) : "",
    figure(text("fact_buckets"), count(found.buckets.length), found.resolution),
    figure(text("fact_batches"), count(found.batches), found.seen !== found.pictures - found.held ? text("fact_seen", { n: count(found.seen) }) : ""),
  );
  const notes = $(".ds-notes");
  notes.hidden = !found.notes.length;
  notes.querySelector("summary").textContent = plural("notes", found.notes.length);
  notes.querySelector("ul").replaceChildren(...found.notes.map((note) => node("li", "", capital(note.what), ...[note.why, note.next].filter(Boolean).map((line) => node("span", "", capital(line))))));
  $("#ds-tags").replaceChildren(...found.tags.slice(0, 200).map(([tag]) => new Option(tag, tag)));
  drawHistory(found.history);
}

$(".ds-choose").addEventListener("submit", (event) => {
  event.preventDefault();
  const wanted = $("#ds-path").value.trim().replace(/^"(.*)"$/, "$1");
  if (wanted) openDataset(wanted);
});

// ---- undo and redo ------------------------------------------------------------------------------
function drawHistory({ undo, redo }) {
  for (const [name, what] of [["undo", undo], ["redo", redo]]) {
    const press = $("#ds-" + name);
    press.disabled = !what;
    press.title = what || "";
  }
}

async function refresh() {
  const reply = await ask("open_dataset", { again: false });
  if (!reply.facts) return;
  drawFacts(reply.facts);
  for (const hook of changedHooks) hook(false);
  if (view !== "pictures") openers[view]?.();
}

for (const name of ["undo", "redo"]) {
  $("#ds-" + name).addEventListener("click", async () => {
    const reply = await tell(name);
    if (reply.history) drawHistory(reply.history);
    if (reply.message) toast(reply.message);
    await refresh();
  });
}

// The Runs page, part 1 of 3: the queue, the list with its search, the trash. The parts are joined by ui/tabs/runs.py.
// Names, notes and prompts come from people and files: they are always set as text.
const { words, text: say, $, node: make } = pageKit({ prefix: "runs.", root: ".at-runs" });
const list = $(".at-run-list");
const gradioRoot = ((window.gradio_config || {}).root || "").replace(/\/$/, "");
const button = (label, act, className = "at-btn", about = "") => {
  const node = make("button", className, label);
  node.type = "button";
  if (about) node.setAttribute("aria-label", about);
  node.addEventListener("click", act);
  return node;
};
const address = (run) => "./?run=" + encodeURIComponent(run);
const size = (bytes) => (bytes < 1e6 ? Math.max(1, Math.round(bytes / 1e3)) + " kB" : bytes < 1e9 ? (bytes / 1e6).toFixed(1) + " MB" : (bytes / 1e9).toFixed(2) + " GB");

let runs = [];
let waiting = { waiting: [] };
let opened = ""; // the run whose card is open
const chosen = new Set(); // runs to compare
const tagsWanted = new Set();

// Ask the server; problems and good news are shown on top. Gives the reply, or null after a problem.
async function ask(what, data) {
  const wrong = $(".at-problem");
  let reply;
  try {
    reply = await server[what](data);
  } catch {
    reply = { problems: [{ what: say("no_answer") }] };
  }
  wrong.hidden = !reply.problems.length;
  wrong.textContent = reply.problems.map((p) => [p.what, p.why, p.next].filter(Boolean).join(" ")).join("\n");
  if (reply.problems.length) wrong.scrollIntoView({ block: "nearest" });
  return reply.problems.length ? null : reply;
}
function tell(text, ...more) {
  const said = $(".at-said");
  said.hidden = !text;
  said.replaceChildren(text, ...more);
}

// ---- the queue ------------------------------------------------------------------------------------
function drawQueue() {
  const box = $(".at-queue");
  box.hidden = !waiting.waiting.length && !waiting.held;
  $(".at-held").hidden = !waiting.held;
  $(".at-held").textContent = waiting.held ? say("held", { why: waiting.held }) : "";
  $(".at-go-on").checked = waiting.go_on;
  $(".at-hold").textContent = say(waiting.held ? "release" : "hold");
  const names = Object.fromEntries(runs.map((run) => [run.id, run.name]));
  const rows = waiting.waiting.map((id, place) => {
    const name = names[id] || id;
    const change = (act, more) => async () => {
      const reply = await ask("wait", { act, run: id, ...more });
      if (reply) draw();
    };
    const tools = make("span", "at-run-actions",
      place > 0 ? button(say("next"), change("move", { place: 0 }), "at-btn", `${say("next")}: ${name}`) : null,
      place > 0 ? button("\u2191", change("move", { place: place - 1 }), "at-btn", say("earlier", { name })) : null,
      place < waiting.waiting.length - 1 ? button("\u2193", change("move", { place: place + 1 }), "at-btn", say("later", { name })) : null,
      button(say("take_out"), change("remove"), "at-btn", `${say("take_out")}: ${name}`),
    );
    return make("li", "", make("span", "at-run-name", name), tools);
  });
  $(".at-queue ol").replaceChildren(...rows);
}
$(".at-go-on").addEventListener("change", (event) => ask("wait", { act: "go_on", value: event.target.checked }));
$(".at-hold").addEventListener("click", async () => {
  if (await ask("wait", { act: waiting.held ? "release" : "hold" })) draw();
});

// ---- the list -------------------------------------------------------------------------------------
function wanted(run) {
  const words = $(".at-runs-search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const text = [run.name, run.id, run.base, run.note, run.state, say("state." + run.state), ...run.tags].join(" ").toLowerCase();
  return words.every((word) => text.includes(word)) && [...tagsWanted].every((tag) => run.tags.includes(tag));
}

function row(run) {
  const pick = make("input");
  pick.type = "checkbox";
  pick.checked = chosen.has(run.id);
  pick.setAttribute("aria-label", say("choose", { name: run.name }));
  pick.addEventListener("change", () => {
    pick.checked ? chosen.add(run.id) : chosen.delete(run.id);
    drawTools();
  });
  const title = button(run.name, () => toggle(run.id), "at-run-title");
  title.setAttribute("aria-expanded", String(opened === run.id));
  const about = [run.detail, run.base].filter(Boolean).join(" \u00b7 ");
  const name = make("div", "at-run-name", title, make("small", "", about), run.tags.length ? make("span", "at-tags", ...run.tags.map((tag) => make("i", "", tag))) : null);
  const place = waiting.waiting.indexOf(run.id);
  const text = place >= 0 ? say("waits", { place: place + 1 }) : say("state." + run.state) + (run.progress ? " \u00b7 " + run.progress : "");
  const now = make("span", "at-run-state", text);
  now.dataset.state = run.state;
  const open = make("a", "at-btn", say("open"));
  open.href = address(run.id);
  open.setAttribute("aria-label", `${say("open")}: ${run.name}`);
  const actions = make("span", "at-run-actions", open);
  if (run.resumable && place < 0)
    actions.append(button(say("resume"), async (event) => {
      event.target.disabled = true;
      if (await ask("resume", { run: run.id })) location.href = open.href;
      event.target.disabled = false;
    }, "at-btn", `${say("resume")}: ${run.name}`));
  const item = make("li", "", pick, name, now, actions);
  item.dataset.run = run.id;
  if (opened === run.id) item.append(cards.get(run.id) || make("div", "at-card", say("loading")));
  return item;
}

function drawList() {
  const found = runs.filter(wanted);
  list.hidden = !found.length;
  $(".at-empty").hidden = runs.length > 0;
  $(".at-runs-tools").hidden = !runs.length;
  $(".at-none-found").hidden = !runs.length || found.length > 0;
  list.replaceChildren(...found.map(row));
}

function drawTools() {
  $(".at-do-compare").disabled = chosen.size !== 2;
  $(".at-do-compare").title = chosen.size === 2 ? "" : say("choose_two");
  const tags = [...new Set(runs.flatMap((run) => run.tags))].sort();
  $(".at-runs-tags").replaceChildren(...tags.map((tag) => {
    const node = button(tag, () => {
      tagsWanted.has(tag) ? tagsWanted.delete(tag) : tagsWanted.add(tag);
      drawTools();
      drawList();
    }, "at-tag");
    node.setAttribute("aria-pressed", String(tagsWanted.has(tag)));
    return node;
  }));
}
$(".at-runs-search").addEventListener("input", drawList);

function drawTrash(items) {
  const box = $(".at-trash");
  box.hidden = !items.length;
  box.querySelector("summary").textContent = say("trash", { n: items.length, size: size(items.reduce((sum, item) => sum + item.size, 0)) });
  box.querySelector("ul").replaceChildren(...items.map((item) =>
    make("li", "", make("span", "at-run-name", item.name, make("small", "", item.id)), button(say("bring_back"), () => bringBack(item.id), "at-btn", `${say("bring_back")}: ${item.name}`))));
}
async function bringBack(id) {
  if (!(await ask("bring_back", { run: id }))) return;
  tell("");
  draw();
}
$(".at-empty-trash").addEventListener("click", async () => {
  if (!confirm(say("empty_trash_sure"))) return;
  if (await ask("empty_trash", {})) draw();
});

let shown = "";
async function draw() {
  let reply;
  try {
    reply = await server.list_all({});
  } catch {
    return; // asked again in a moment
  }
  const now = JSON.stringify(reply);
  if (now === shown) return;
  shown = now;
  ({ runs, queue: waiting } = reply);
  for (const id of chosen) if (!runs.some((run) => run.id === id)) chosen.delete(id);
  drawQueue();
  drawTrash(reply.trash);
  drawTools();
  // What somebody types into a card must not be taken from under their hands.
  if (!list.contains(document.activeElement) || !document.activeElement.matches("input:not([type=checkbox]), textarea")) drawList();
}

// The Dataset page, part 1 of 8: its views, opening a folder or file, undo and redo. What it shares with
// other pages is in page-kit.js.
// `element`, `props` and `server` come from the page. All texts from files are set as text, never as HTML.
let path = ""; // the dataset that is open
let facts = null;
// Every call names the dataset, so that two pages may have two of them open.
const { text, $, $$, node, button, count, plural, capital, later, ask, tell, drawProblems, toast, tabbed, pressed, closing } = pageKit({ prefix: "data.", root: ".ds", detail: "details", always: () => ({ path }) });
const views = tabbed({ bar: ".ds-tabs", pane: "#pane-", first: "pictures", ready: () => facts });
closing(".ds-close");
withBrowse($("#ds-path"), { label: text("path"), key: "dataset_config", either: true });

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
  views.show(other ? "pictures" : views.now);
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
    figure(text("fact_pictures"), count(found.pictures), [found.reg && text("fact_reg", { n: count(found.reg) }), found.held && text("fact_held", { n: count(found.held) })].filter(Boolean).join(text("and"))),
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
  if (views.now !== "pictures") views.openers[views.now]?.();
}

for (const name of ["undo", "redo"]) {
  $("#ds-" + name).addEventListener("click", async () => {
    const reply = await tell(name);
    if (reply.history) drawHistory(reply.history);
    if (reply.message) toast(reply.message);
    await refresh();
  });
}

// The Start page: the demo button and the newest runs.
const { words, $: find, node: make } = pageKit({ prefix: "", root: ".at-start" });
const newest = find(".at-newest");
const wrong = find(".at-problem");
const address = (run) => "./?run=" + encodeURIComponent(run) + "#live";

find("#btn-demo").addEventListener("click", async (event) => {
  const button = event.currentTarget;
  button.disabled = true;
  wrong.hidden = true;
  const reply = await server.demo({});
  if (!reply.problems.length) return (location.href = address(reply.run));
  wrong.hidden = false;
  wrong.textContent = reply.problems.map((p) => [p.what, p.why, p.next].filter(Boolean).join(" ")).join("\n");
  button.disabled = false;
});

function row(run) {
  const name = make("div", "at-run-name", run.name, make("small", "", run.detail));
  const text = words["runs.state." + run.state] + (run.progress ? " \u00b7 " + run.progress : "");
  const state = make("span", "at-run-state", text);
  state.dataset.state = run.state;
  const open = make("a", "at-btn", words.open);
  open.href = address(run.id);
  open.setAttribute("aria-label", words.open + ": " + run.name);
  return make("li", "", name, state, open);
}

let shown = "";
async function draw() {
  let reply;
  try {
    reply = await server.newest({});
  } catch {
    return; // asked again in a moment
  }
  const now = JSON.stringify(reply.runs);
  if (now === shown) return;
  shown = now;
  newest.hidden = !reply.runs.length;
  newest.querySelector("ul").replaceChildren(...reply.runs.map(row));
}

draw();
const beat = setInterval(() => {
  if (!element.isConnected) return clearInterval(beat);
  if (!document.hidden) draw();
}, 4000);

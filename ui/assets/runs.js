// The list of runs: newest first, refreshed while the page is looked at.
const words = JSON.parse(props.texts);
const list = element.querySelector("ul");
const wrong = element.querySelector(".at-problem");
const make = (tag, className, ...children) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
};
let shown = "";

function row(run) {
  const name = make("div", "at-run-name", run.name, make("small", "", run.detail));
  const state = make("span", "at-run-state", words["runs.state." + run.state] + (run.progress ? " \u00b7 " + run.progress : ""));
  state.dataset.state = run.state;
  const open = make("a", "at-btn", words["runs.open"]);
  open.href = "./?run=" + encodeURIComponent(run.id);
  const actions = make("span", "at-run-actions", open);
  if (run.resumable) {
    const resume = make("button", "at-btn", words["runs.resume"]);
    resume.type = "button";
    resume.addEventListener("click", async () => {
      resume.disabled = true;
      const reply = await server.resume({ run: run.id });
      if (!reply.problems.length) return (location.href = open.href);
      wrong.hidden = false;
      wrong.textContent = reply.problems.map((p) => [p.what, p.why, p.next].filter(Boolean).join(" ")).join("\n");
      resume.disabled = false;
    });
    actions.append(" ", resume);
  }
  return make("li", "", name, state, actions);
}

async function draw() {
  let reply;
  try {
    reply = await server.list_all({});
  } catch {
    return; // asked again in a moment
  }
  const now = JSON.stringify(reply.runs);
  if (now === shown) return;
  shown = now;
  list.hidden = !reply.runs.length;
  element.querySelector(".at-empty").hidden = reply.runs.length > 0;
  list.replaceChildren(...reply.runs.map(row));
}

draw();
const beat = setInterval(() => {
  if (!element.isConnected) return clearInterval(beat);
  if (!document.hidden) draw();
}, 4000);

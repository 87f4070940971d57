// A job at work, what came of it, and taking it back.
function problemNode(problem) {
  const node = make("div", "an-error", make("strong", "", problem.what));
  node.setAttribute("role", "alert");
  for (const key of ["where", "why", "next"]) if (problem[key]) node.append(make("p", "", problem[key]));
  if (problem.detail) node.append(make("details", "", make("summary", "", say("details")), make("pre", "", problem.detail)));
  return node;
}

const clock = (seconds) => (seconds < 90 ? say("seconds", { n: Math.ceil(seconds) }) : say("minutes", { n: Math.round(seconds / 60) }));

function workingNode(job) {
  const bar = make("progress");
  if (job.total) Object.assign(bar, { max: job.total, value: job.done });
  bar.setAttribute("aria-label", say(job.task));
  const parts = [];
  if (job.total) parts.push(say("of", { n: job.done, m: job.total }));
  if (job.rate > 0) parts.push(say("rate", { n: job.rate.toFixed(1) }));
  if (job.rate > 0 && job.total) parts.push(say("left", { time: clock((job.total - job.done) / job.rate) }));
  return [make("h2", "", say(job.task)), make("p", "an-about", parts.join(" \u00b7 ") || job.note || say("starting")), bar];
}

function undoNode(result) {
  if (result.edit == null) return "";
  const said = make("p", "an-about");
  said.setAttribute("role", "status");
  const back = button("at-btn an-undo", say("undo"), async () => {
    back.disabled = true;
    const reply = await server.undo({});
    said.textContent = reply.problems.length ? reply.problems.map((one) => [one.what, one.next].filter(Boolean).join(". ")).join(" ") : reply.message;
    back.disabled = !reply.problems.length;
  });
  const look = make("a", "at-quiet", say("to_dataset"));
  look.href = "./dataset";
  return make("div", "", make("div", "an-actions", back, look), said);
}

function listNode(title, rows, total) {
  const items = rows.map((row) => (Array.isArray(row) ? make("li", "", make("strong", "", row[0]), " " + row[1]) : make("li", "", row)));
  if (total > rows.length) items.push(make("li", "", say("and_more", { n: total - rows.length })));
  return make("div", "", make("h3", "", title), make("ul", "an-list", ...items));
}

function doneNode(job) {
  const result = job.result, nodes = [];
  const wrote = result.total == null ? say("wrote_" + result.what, { n: result.written }) : say("wrote_" + result.what, { n: result.written, m: result.total });
  nodes.push(make("h2", result.failed_total ? "an-warn" : "an-good", (result.stopped ? say("stopped") + " " : "") + wrote));
  const facts = [];
  if (result.rate) facts.push(say("rate", { n: result.rate.toFixed(1) }), say("took", { time: clock(result.seconds) }));
  if (result.had_text) facts.push(say("had_text", { n: result.had_text }));
  if (result.output) facts.push(say("into", { path: result.output }));
  if (result.kept) facts.push(say("kept", { name: result.kept }));
  if (facts.length) nodes.push(make("p", "an-about", facts.join(" \u00b7 ")));
  for (const note of result.notes || []) nodes.push(make("p", "an-about", note));
  if (result.failed_total) nodes.push(listNode(say("failed", { n: result.failed_total }), result.failed, result.failed_total));
  if (result.empty_total) nodes.push(listNode(say("empty", { n: result.empty_total }), result.empty, result.empty_total));
  nodes.push(undoNode(result));
  if (result.counts?.length) {
    const tags = result.counts.map(([tag, count]) => make("span", "", tag, make("b", "", String(count))));
    nodes.push(make("div", "", make("h3", "", say("counts")), make("div", "an-tags", ...tags)));
  }
  return nodes;
}

// Nothing has run yet: what will stand here, and how to begin.
function showNothing() {
  at(".an-result").replaceChildren(make("p", "an-nothing", say("nothing_" + (task().rules ? "rules" : task().trial ? "trial" : "yet"))));
}

function show(job) {
  page.job = job;
  const active = !!job?.active;
  at(".an-go").disabled = at(".an-try").disabled = active;
  at(".an-stop").hidden = !active;
  at(".an-stop").disabled = false;
  if (!job) return;
  const box = at(".an-result");
  if (active) {
    box.replaceChildren(...workingNode(job));
    setTimeout(poll, 500);
  } else if (job.errors.length) {
    marks(job.errors);
    box.replaceChildren(...job.errors.map(problemNode));
  } else if (job.result?.pictures) {
    if (job.task === page.kind) showTrial(job.result);
    else showNothing();
  } else if (job.result?.changes) {
    box.replaceChildren(...changesNode(job.result));
  } else if (job.result) {
    page.trial = null;
    box.replaceChildren(...doneNode(job));
  } else {
    box.replaceChildren(make("p", "an-about", say(job.state === "stopped" ? "stopped" : "ended")));
  }
}

async function poll() {
  if (!element.isConnected) return;
  try {
    show((await server.look({})).job);
  } catch {
    setTimeout(poll, 2000); // the server may be starting again
  }
}

openPage();

// The Dataset page, part 7 of 8: the doctor's findings, their fixes, and taking those back.
function example(one) {
  const thumb = node("div", "ds-thumb");
  const label = [one.name, one.detail].filter(Boolean).join(": ");
  const made = one.id ? button("ds-example", "", () => enlarge(one.id)) : node("div", "ds-example");
  made.append(...(one.folder ? [] : [thumb]), node("b", "", one.name), one.detail ? node("span", "", one.detail) : "");
  made.title = label;
  if (!one.id) fillThumb(thumb, "");
  else if (thumbs.has(thumbKey(one, false))) fillThumb(thumb, thumbs.get(thumbKey(one, false)));
  else made.pending = (address) => fillThumb(thumb, address);
  return made;
}

function finding(one) {
  const actions = node("div", "ds-actions");
  if (one.fix) actions.append(button("at-btn", one.fix.title, () => openFix(one)));
  const examples = one.examples.map(example);
  const made = node("li", "ds-finding",
    node("div", "", node("h3", "", node("span", "", text("severity_" + one.severity)), capital(one.title)), node("p", "ds-small", capital(one.meaning))),
    actions, node("div", "ds-examples", ...examples, one.more ? node("span", "ds-small ds-more", text("more_examples", { n: count(one.more) })) : ""));
  made.dataset.severity = one.severity;
  made.dataset.rule = one.rule;
  const waiting = new Map(examples.map((box, i) => [one.examples[i], box.pending]).filter(([, pending]) => pending));
  if (waiting.size) fetchThumbs([...waiting.keys()], false, (item, address) => waiting.get(item)(address));
  return made;
}

// The examination runs on the server, beside the page; this follows it.
async function follow() {
  const here = path;
  const press = $("#ds-examine");
  press.disabled = true;
  let reply;
  do {
    reply = await tell("examined");
    if (path !== here) return;
    press.textContent = reply.total ? text("examining_n", { done: count(reply.done), total: count(reply.total) }) : text("examining");
    if (reply.running) await new Promise((done) => setTimeout(done, 300));
  } while (reply.running);
  press.disabled = false;
  press.textContent = text(reply.findings ? "examine_again" : "examine");
  drawFindings(reply);
}
async function examine() {
  const reply = await tell("examine");
  if (reply.running) await follow();
}

function drawFindings(reply) {
  const findings = reply.findings;
  const verdict = $(".ds-verdict");
  verdict.hidden = !findings;
  if (findings) verdict.textContent = findings.length ? plural("found", findings.length) : text("found_none");
  const list = (findings ?? []).map(finding);
  if (reply.undo) {
    const back = node("li", "ds-finding", node("p", "", reply.undo), node("div", "ds-actions", button("at-btn ds-fix-undo", text("undo_fix"), undoFix)));
    list.unshift(back);
  }
  $(".ds-findings").replaceChildren(...list);
}

let fixing = null;
async function openFix(one) {
  const reply = await tell("preview_fix", { rule: one.rule });
  if (!reply.lines) return;
  fixing = one;
  $("#ds-fix-title").textContent = one.fix.title;
  $(".ds-fix-help").textContent = reply.help;
  $(".ds-fix-list").replaceChildren(...reply.lines.map((line) => node("li", "", line)));
  $(".ds-fix").showModal();
}
$("#ds-fix-apply").addEventListener("click", async () => {
  const press = $("#ds-fix-apply");
  press.disabled = true;
  const reply = await tell("apply_fix", { rule: fixing.rule });
  press.disabled = false;
  if (reply.problems.length) return;
  $(".ds-fix").close();
  toast(reply.message);
  await refresh();
  await follow();
});
async function undoFix() {
  const reply = await tell("undo_fix");
  if (!reply.message) return;
  if (!reply.problems.length) toast(reply.message);
  await refresh();
  await follow();
}
$("#ds-examine").addEventListener("click", examine);
changedHooks.push((other) => {
  if (!other) return;
  $(".ds-verdict").hidden = true;
  $(".ds-findings").replaceChildren();
  $("#ds-examine").textContent = text("examine");
});
// An examination that goes on, or was made before the page was loaded again, is shown.
views.openers.doctor = () => {
  if (!$(".ds-findings").children.length && !$("#ds-examine").disabled) follow();
};

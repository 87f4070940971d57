// The plan before a start: what will be trained, on what, for how long, into which files, and what it needs.
const plan = { asked: 0, box: $(".at-plan-more"), button: $("#btn-plan"), line: $(".at-plan-line") };

const bytes = (n) => {
  for (const [unit, scale] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) if (n >= scale) return `${(n / scale).toFixed(n >= 10 * scale ? 0 : 1)} ${unit}`;
  return `${n} B`;
};
const span = (seconds) => {
  const minutes = Math.round(seconds / 60);
  if (seconds < 90) return text("train.span_seconds", { n: Math.max(1, Math.round(seconds)) });
  return minutes < 90 ? text("train.span_minutes", { n: minutes }) : text("train.span_hours", { h: Math.floor(minutes / 60), m: minutes % 60 });
};

async function workOut() {
  form.flush();
  const mine = ++plan.asked;
  tried = true;
  plan.button.disabled = true;
  plan.box.hidden = true;
  plan.line.hidden = false;
  const values = form.values();
  for (let turn = 0; mine === plan.asked; turn++) {
    let reply;
    try {
      reply = await server.plan({ values, again: turn === 0 });
    } catch {
      reply = { state: "working", problems: [] };
    }
    if (mine !== plan.asked) return;
    if (reply.state === "working") {
      plan.line.textContent = text("train.plan_working", { n: Math.round(reply.seconds ?? 0) });
    } else if (reply.doctor !== null || !plan.line.hidden) {
      endPlan();
      drawPlan(reply);
      if (reply.doctor !== null) return;
    }
    // The plan is shown while the doctor still looks; its findings are added to it.
    await new Promise((wake) => setTimeout(wake, plan.line.hidden ? 2000 : 700));
  }
}

function endPlan() {
  plan.button.disabled = false;
  plan.line.hidden = true;
}

// The form has changed: what was worked out is of other settings.
function planIsOld() {
  plan.asked++;
  endPlan();
  plan.box.classList.add("at-old");
}

function drawPlan(reply) {
  drawProblems(reply.problems);
  const card = reply.card;
  const rows = card?.steps ? [partsFact(card), dataFact(card), stepsFact(card, reply.time), filesFact(card), memoryFact(card), ...doctorFacts(reply.doctor), changedFact(card)] : [];
  plan.box.hidden = !rows.length;
  plan.box.classList.remove("at-old");
  plan.box.querySelector("dl").replaceChildren(...rows.filter(Boolean));
  if (!rows.length) return;
  const notes = card.notes ?? [];
  plan.box.querySelector("ul").replaceChildren(...notes.map(problemItem));
  plan.box.querySelector("ul").hidden = !notes.length;
}

const partsFact = (card) =>
  fact(text("train.plan_trained"), text(card.modules ? "train.plan_modules" : "train.plan_numbers", { n: count(card.modules), p: count(card.parameters) }), card.title, ...card.groups.map((group) => text("train.plan_group", { name: group.name, p: count(group.parameters), rate: group.rate })));

const dataFact = (card) =>
  fact(text("train.pictures"), text("train.pictures_n", { n: count(card.images) }), text("train.repeats", { n: count(card.train_images) }), card.reg_images ? text("train.reg", { n: count(card.reg_images) }) : "", card.buckets?.length ? shapes(card.buckets) : "");

function stepsFact(card, time) {
  const steps = card.steps - (card.start ?? 0);
  const how = time ? text(time.exact ? "train.plan_measured" : "train.plan_scaled", { run: time.run, s: time.seconds.toPrecision(3) }) : text("train.plan_no_time");
  return fact(text("train.length"), text("train.steps_n", { n: count(steps) }) + (time ? " \u00b7 " + span(time.total) : ""), card.start ? text("train.plan_from", { n: count(card.start) }) : "", text("train.plan_epochs", { n: card.epochs, s: count(card.steps_per_epoch) }), how);
}

function filesFact(card) {
  const needed = card.disks.reduce((sum, disk) => sum + disk.needed, 0);
  const lines = card.files.map((file) => text("train.plan_file", { n: count(file.count), kind: file.kind, size: bytes(file.size) }));
  const room = card.disks.map((disk) => text("train.plan_disk", { needed: bytes(disk.needed), free: bytes(disk.free), folder: disk.folder }));
  return fact(text("train.plan_files"), bytes(needed), ...lines, ...room, card.result);
}

function memoryFact(card) {
  const memory = card.memory;
  if (memory.total == null) return fact(text("train.plan_memory"), text("train.plan_unknown"), memory.basis);
  const parts = text("train.plan_parts", { weights: bytes(memory.weights), trained: bytes(memory.trained), step: bytes(memory.activations) });
  const row = fact(text("train.plan_memory"), text("train.plan_about", { size: bytes(memory.total) }), parts, memory.free ? text("train.plan_free", { size: bytes(memory.free) }) : text("train.plan_no_card"), text("train.plan_counted"));
  row.classList.toggle("at-tight", Boolean(memory.free && memory.total > memory.free));
  return row;
}

const doctorFacts = (findings) => (!findings ? [fact(text("train.plan_machine"), text("train.plan_doctor_looks"))] : findings.length ? [fact(text("train.plan_machine"), text("train.plan_findings", { n: findings.length }), ...findings.map((one) => `${one.name}: ${one.text}${one.fix ? " \u2192 " + one.fix : ""}`))] : []);

const changedFact = (card) =>
  card.differences?.length ? fact(text("train.plan_changed"), text("train.plan_changed_n", { n: card.differences.length }), ...card.differences.map((one) => `${one.what}: ${one.before} \u2192 ${one.now}`)) : null;

plan.button.addEventListener("click", workOut);

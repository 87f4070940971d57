// The Generate page, part 5 of 9: start, stop, the queue, progress, previews and finished pictures.
const QUICK = 450; // ms between two looks while something is drawn
const SLOW = 6000;
let now = { job: "", shots: [], busy: false, state: "idle" };
let shots = []; // of the job that is shown
let looking = 0;
const shotHooks = []; // called with (now, new shots)

async function begin() {
  const start = $("#ge-start");
  start.disabled = true;
  const reply = await ask("draw", { values: readForm(), ...seen() });
  start.disabled = false;
  markWrong(reply.problems);
  drawProblems($("#ge-problems"), reply.problems);
  if (!reply.problems.length) take(reply);
}
const seen = () => ({ job: now.job, shots: shots.length, preview: now.previews });

function take(reply) {
  if (!reply.now) return;
  const wasBusy = now.busy;
  const other = reply.now.job !== now.job;
  now = reply.now;
  if (other) {
    shots = [];
    $("#ge-shots").replaceChildren();
  }
  const fresh = now.shots.slice(Math.max(shots.length - now.first, 0));
  shots.push(...fresh);
  if (now.kind === "pictures") for (const shot of fresh) addShot(shot);
  if (now.seed != null && now.kind === "pictures") lastSeed = now.seed;
  drawStatus();
  drawQueue($("#ge-queue"), reply.waiting, "queued");
  drawQueue($("#ge-left-jobs .ge-queue"), reply.left, "left_one");
  $("#ge-left-jobs").hidden = !reply.left.length;
  const training = $("#ge-training");
  training.hidden = !reply.training;
  training.textContent = reply.training ? text("training", { name: reply.training }) : "";
  for (const hook of shotHooks) hook(now, fresh);
  if (wasBusy && !now.busy) ended();
  lookLater(now.busy || reply.waiting.length ? QUICK : SLOW);
}

function lookLater(wait) {
  clearTimeout(looking);
  looking = setTimeout(look, wait);
}
async function look() {
  if (!element.isConnected) return;
  if (document.hidden && !now.busy) return lookLater(SLOW);
  const reply = await ask("look", { ...seen(), measure: !now.busy });
  if (reply.lost) return lookLater(SLOW);
  take(reply);
}
document.addEventListener("visibilitychange", () => document.hidden || (element.isConnected && look()));

function statusLine() {
  const parts = { picture: Math.min(now.done + 1, now.total), total: now.total, step: now.step, steps: now.steps };
  if (now.state === "starting") return text("starting");
  if (now.state === "loading") return text("loading", { name: now.detail });
  if (now.state === "stopping") return text("stopping");
  return text("drawing", parts);
}

function drawStatus() {
  const box = $("#ge-status");
  const lines = [];
  if (now.busy) {
    const bar = node("progress");
    bar.max = 1;
    if (now.state === "drawing") bar.value = Math.min((now.done + (now.steps ? now.step / now.steps : 0)) / Math.max(now.total, 1), 1);
    bar.setAttribute("aria-label", statusLine());
    lines.push(node("p", "", (now.kind === "grid" ? now.title + ": " : "") + statusLine()), bar);
  } else if (now.job) {
    const key = now.stopped ? "stopped" : "finished";
    const done = node("p", "ge-done", node("span", "", text(key, { count: count(shots.length), seconds: now.seconds })));
    if (now.seed != null) done.append(node("span", "", text("seed") + " ", node("code", "", String(now.seed))));
    lines.push(done);
  } else lines.push(node("p", "ge-small", text("hint")));
  lines.push(...(now.notes ?? []).map((note) => node("p", "ge-note", note)));
  box.replaceChildren(...lines);
  $("#ge-stop").disabled = !now.busy || now.state === "stopping";
  $("#ge-start").textContent = text(now.busy ? "enqueue" : "start");
  if (now.job && (now.busy || now.problems.length)) drawProblems($("#ge-problems"), now.problems);
  drawPreview();
  drawMemory();
}

function drawPreview() {
  const image = $("#ge-preview");
  if (now.preview) image.src = now.preview; // null: the one that is shown already
  if (now.preview === "" || !now.busy) image.hidden = true;
  else if (now.preview) image.hidden = false;
}

function drawMemory() {
  const memory = now.memory ?? {};
  const gigabytes = (bytes) => (bytes / 1e9).toFixed(1);
  const parts = [];
  if (memory.process) parts.push(text("memory", { gb: gigabytes(memory.process) }));
  if (memory.device) parts.push(text("memory_card", { gb: gigabytes(memory.device) }));
  // While a first job is at work the model is there, and its size is told when the job is done.
  const without = now.busy ? (now.state === "drawing" ? text("memory_first") : "") : text("memory_none");
  $("#ge-memory").textContent = memory.process ? [memory.model, ...parts].filter(Boolean).join(" \u00b7 ") : without;
  $("#ge-unload").hidden = !memory.process;
}

function drawQueue(box, jobs, label) {
  const told = jobs.map((job) => job.id).join();
  if (box.dataset.told === told) return; // a button that is drawn anew while it is pressed is not pressed
  box.dataset.told = told;
  box.hidden = !jobs.length;
  box.replaceChildren(...jobs.map((job) => {
    const away = button("at-quiet", text("cancel"), async () => take(await tell("cancel", { waiting: job.id, ...seen() })));
    return node("li", "", node("span", "", text(label, { title: job.title, count: count(job.total) })), away);
  }));
}
$("#ge-go-on").addEventListener("click", async (event) => {
  event.target.disabled = true;
  take(await tell("go_on", seen()));
  event.target.disabled = false;
});

const placed = (a, b) => {
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return a[i] - b[i];
  return 0;
};
const ofJob = () => [...shots].sort((a, b) => placed(a.place, b.place));

function addShot(shot) {
  const image = node("img");
  image.src = shot.url;
  image.alt = shot.caption || shot.name;
  image.loading = "lazy";
  const open = button("ge-open", "", () => openViewer(ofJob(), ofJob().findIndex((one) => one.path === shot.path)));
  open.append(image);
  const about = [shot.caption, shot.seed == null ? "" : String(shot.seed)].filter(Boolean).join(" \u00b7 ");
  const figure = node("figure", "", open, node("figcaption", "", about));
  figure.place = shot.place;
  const box = $("#ge-shots");
  box.style.setProperty("--columns", now.columns || Math.min(Math.max(now.total, 1), 3));
  const after = [...box.children].find((other) => placed(other.place, shot.place) > 0);
  box.insertBefore(figure, after ?? null);
}

async function ended() {
  if (now.state === "idle" && document.hidden && now.done > 1) document.title = "\u2713 " + document.title.replace(/^\u2713 /, "");
  drawEarlier();
  drawFiles(await ask("list_files"));
}
document.addEventListener("visibilitychange", () => { if (!document.hidden) document.title = document.title.replace(/^\u2713 /, ""); });

// The newest pictures of other jobs, one click away.
async function drawEarlier() {
  const reply = await ask("list_made", { kind: "picture", page: 1, per: 24 });
  const shown = new Set(shots.map((shot) => shot.name));
  const items = (reply.items ?? []).filter((item) => !shown.has(item.name)).slice(0, 12);
  $("#ge-earlier").hidden = !items.length;
  fillStrip($("#ge-earlier ul"), items);
}

$("#ge-start").addEventListener("click", begin);
$(".ge-form").addEventListener("submit", (event) => { event.preventDefault(); });
element.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && views.now === "draw" && !$("dialog[open]")) begin();
});
$("#ge-stop").addEventListener("click", async () => take(await tell("stop", seen())));
$("#ge-unload").addEventListener("click", async () => {
  const reply = await tell("release", seen());
  if (reply.message) toast(reply.message);
  take(reply);
});

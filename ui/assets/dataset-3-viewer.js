// The Dataset page, part 3 of 8: one picture large, original and as trained, and its caption.
const viewer = $(".ds-viewer");
const area = $("#ds-caption-text");
let shown = null; // the picture in view, as the server told it
let look = "both";
let counted = 0;

const unsaved = () => shown && area.value !== shown.caption;

async function enlarge(id) {
  if (viewer.open && unsaved() && !(await save())) return;
  const reply = await tell("show_picture", { id });
  if (!reply.picture) return;
  shown = reply.picture;
  $("#ds-view-name").textContent = shown.name;
  drawViewFacts();
  area.value = shown.caption;
  $(".ds-where").textContent = shown.caption_file ? text("caption_file", { file: shown.caption_file }) : "";
  $(".ds-saved").textContent = "";
  $(".ds-conflict").hidden = true;
  drawTokens(shown.tokens);
  drawShots();
  const at = listed.items.findIndex((item) => item.id === id);
  for (const press of $$(".ds-turns [data-step]")) press.disabled = at < 0 || !nextId(Number(press.dataset.step));
  if (!viewer.open) viewer.showModal();
}

function drawViewFacts() {
  const { original, resized, bucket, lost } = shown;
  const size = ([w, h]) => `${w}\u00d7${h}`;
  const parts = [size(original), text("made_into", { size: size(resized) }), text("cut_to", { size: size(bucket) })];
  if (lost >= 0.5) parts.push(text("lost", { n: lost.toFixed(lost < 10 ? 1 : 0) }));
  $(".ds-view-facts").textContent = parts.join(" \u00b7 ");
}

const shot = (name) => $(`[data-shot="${name}"]`);
function drawShots() {
  const mask = $("#ds-masks").checked;
  shot("original").hidden = look === "trained";
  shot("trained").hidden = look === "original";
  for (const [name, address] of [["original", shown.original_picture], ["trained", mask && shown.masked_picture ? shown.masked_picture : shown.trained_picture]]) {
    const image = shot(name).querySelector("img");
    image.src = address || "";
    image.hidden = !address;
    image.alt = text("alt_" + name, { name: shown.name });
  }
  shot("original").querySelector("figcaption").textContent = text("original_caption");
  shot("trained").querySelector("figcaption").textContent = text("trained_caption");
  placeCrop();
}

// The frame over the original shows what is kept.
function placeCrop() {
  const box = shot("original");
  const image = box.querySelector("img");
  const frame = box.querySelector(".ds-crop");
  const { resized, bucket, crop } = shown;
  frame.hidden = !image.clientWidth || (resized[0] === bucket[0] && resized[1] === bucket[1]);
  if (frame.hidden) return;
  const x = image.clientWidth / resized[0];
  const y = image.clientHeight / resized[1];
  Object.assign(frame.style, {
    left: image.offsetLeft + crop[0] * x + "px",
    top: image.offsetTop + crop[1] * y + "px",
    width: bucket[0] * x + "px",
    height: bucket[1] * y + "px",
  });
}
shot("original").querySelector("img").addEventListener("load", placeCrop);
new ResizeObserver(() => viewer.open && shown && placeCrop()).observe(shot("original"));

$(".ds-look-tools .at-views").addEventListener("click", (event) => {
  if (!event.target.dataset.look) return;
  look = event.target.dataset.look;
  pressed(event.currentTarget, "look", look);
  drawShots();
});

// ---- the caption --------------------------------------------------------------------------------
function drawTokens({ n, limit, cut, kept }) {
  const line = $(".ds-tokens");
  line.textContent = text("tokens", { n: count(n), limit: count(limit) });
  line.classList.toggle("ds-over", Boolean(cut));
  const box = $(".ds-cut");
  box.hidden = !cut;
  box.replaceChildren();
  if (cut) box.append(node("strong", "", text("cut_off")), " ", kept.length > 90 ? "\u2026" + kept.slice(-90) : kept, node("mark", "", cut));
}

const recount = later(async () => {
  const mine = ++counted;
  const reply = await ask("count_tokens", { text: area.value });
  if (mine === counted && reply.tokens) drawTokens(reply.tokens);
}, 150);
area.addEventListener("input", () => {
  $(".ds-saved").textContent = unsaved() ? text("unsaved") : "";
  recount();
});
area.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && (event.key === "s" || event.key === "Enter")) {
    event.preventDefault();
    save();
  }
});

async function save() {
  if (!unsaved()) return true;
  const mine = area.value;
  const reply = await tell("save_caption", { id: shown.id, text: mine, mark: shown.mark });
  if (reply.conflict) {
    $(".ds-mine").textContent = mine;
    $(".ds-theirs").textContent = reply.conflict.text;
    $(".ds-conflict").hidden = false;
    shown.theirs = reply.conflict;
    return false;
  }
  if (reply.problems.length) return false;
  settled(mine, reply);
  return true;
}

function settled(caption, reply) {
  Object.assign(shown, { caption, mark: reply.mark });
  if (reply.caption_file) $(".ds-where").textContent = text("caption_file", { file: reply.caption_file });
  $(".ds-conflict").hidden = true;
  $(".ds-saved").textContent = text("saved");
  refresh();
}

$(".ds-caption").addEventListener("submit", (event) => {
  event.preventDefault();
  save();
});
$("#ds-take").addEventListener("click", () => {
  area.value = shown.theirs.text;
  recount();
  settled(shown.theirs.text, { mark: shown.theirs.mark });
});
$("#ds-keep").addEventListener("click", async () => {
  shown.mark = shown.theirs.mark;
  await save();
});

// ---- from one to the next -----------------------------------------------------------------------
function nextId(step) {
  const at = listed.items.findIndex((item) => item.id === shown?.id);
  return at < 0 ? undefined : listed.items[at + step]?.id;
}
for (const press of $$(".ds-turns [data-step]")) press.addEventListener("click", () => enlarge(nextId(Number(press.dataset.step))));
viewer.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!step || event.target === area || !nextId(step)) return;
  event.preventDefault();
  enlarge(nextId(step));
});
// Leaving with an unsaved text saves it; a conflict keeps the window open.
async function leave(event) {
  if (!unsaved()) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  if (await save()) viewer.close();
}
viewer.addEventListener("cancel", leave);
viewer.querySelector(".ds-close").addEventListener("click", leave);
$("#ds-paint").addEventListener("click", () => paintMask(shown));

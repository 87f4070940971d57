// The Dataset page, part 4 of 8: painting a mask of a picture, at any zoom. The painting itself is in
// page-mask.js.
const painter = $(".ds-mask");
const stageBox = $(".ds-stage-box");
const stage = $(".ds-stage");
const canvas = stage.querySelector("canvas");
const pad = maskPad(canvas, () => {
  warned = false;
  $("#ds-mask-undo").disabled = !pad.acts;
});
let painted = null; // {id, mark} of the picture being painted
let tool = "brush";
let zoom = 1;
let warned = false; // closing was tried with something unsaved
const fingers = new Map();

async function paintMask(picture) {
  const reply = await tell("open_mask", { id: picture.id });
  if (!reply.size) return;
  painted = { id: picture.id, mark: reply.mark };
  stage.querySelector("img").src = picture.original_picture;
  await pad.open(reply.size, reply.mask);
  $("#ds-mask-name").textContent = text("mask_of", { name: picture.name });
  $(".ds-mask-note").textContent = pad.hasBase ? text("mask_loaded") : "";
  $("#ds-brush").value = Math.round(Math.max(canvas.width, canvas.height) / 14);
  painter.showModal();
  fitZoom();
}

for (const name of ["undo", "invert", "clear"]) $("#ds-mask-" + name).addEventListener("click", pad[name]);
$(".ds-mask-tools .at-views").addEventListener("click", (event) => {
  if (!event.target.dataset.tool) return;
  tool = event.target.dataset.tool;
  pressed(event.currentTarget, "tool", tool);
});

// ---- pointer ------------------------------------------------------------------------------------
stage.addEventListener("pointerdown", (event) => {
  fingers.set(event.pointerId, [event.clientX, event.clientY]);
  if (fingers.size === 2 && pad.painting) {
    pad.end(); // a second finger moves and zooms; what the first began is taken back
    pad.undo();
  }
  if (event.button !== 0 || fingers.size > 1) return;
  event.preventDefault();
  stage.setPointerCapture(event.pointerId);
  pad.begin(event, Number($("#ds-brush").value), tool === "eraser" ? 0 : Number($("#ds-weight").value));
});
stage.addEventListener("pointermove", (event) => {
  if (fingers.size === 2 && fingers.has(event.pointerId)) pinch(event);
  else if (pad.painting) pad.follow(event);
});
for (const name of ["pointerup", "pointercancel"]) {
  stage.addEventListener(name, (event) => {
    fingers.delete(event.pointerId);
    pad.end();
  });
}

function pinch(event) {
  const other = [...fingers].find(([id]) => id !== event.pointerId)[1];
  const before = fingers.get(event.pointerId);
  const now = [event.clientX, event.clientY];
  const apart = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]) || 1;
  stageBox.scrollBy((before[0] - now[0]) / 2, (before[1] - now[1]) / 2);
  setZoom(zoom * (apart(now, other) / apart(before, other)), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
  fingers.set(event.pointerId, now);
}

// ---- zoom ---------------------------------------------------------------------------------------
function setZoom(to, x, y) {
  const box = stageBox.getBoundingClientRect();
  const at = [x ?? box.left + box.width / 2, y ?? box.top + box.height / 2];
  const before = canvas.getBoundingClientRect();
  const share = [(at[0] - before.left) / (before.width || 1), (at[1] - before.top) / (before.height || 1)];
  zoom = Math.min(8, Math.max(0.05, to));
  stage.style.width = canvas.width * zoom + "px";
  stage.style.height = canvas.height * zoom + "px";
  $("#ds-zoom").textContent = Math.round(zoom * 100) + " %";
  const after = canvas.getBoundingClientRect();
  stageBox.scrollBy(after.left + share[0] * after.width - at[0], after.top + share[1] * after.height - at[1]);
}
function fitZoom() {
  const room = [stageBox.clientWidth - 2, stageBox.clientHeight - 2];
  setZoom(Math.min(room[0] / canvas.width, room[1] / canvas.height));
}
$("#ds-zoom-in").addEventListener("click", () => setZoom(zoom * 1.4));
$("#ds-zoom-out").addEventListener("click", () => setZoom(zoom / 1.4));
$("#ds-zoom-fit").addEventListener("click", fitZoom);
stageBox.addEventListener("wheel", (event) => {
  if (!event.ctrlKey) return;
  event.preventDefault();
  setZoom(zoom * Math.exp(-event.deltaY / 300), event.clientX, event.clientY);
}, { passive: false });
painter.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key === "z" && pad.acts) pad.undo();
  if (event.key === "[" || event.key === "]") $("#ds-brush").value = Number($("#ds-brush").value) * (event.key === "]" ? 1.2 : 1 / 1.2);
});

// ---- saving -------------------------------------------------------------------------------------
$("#ds-mask-save").addEventListener("click", async () => {
  const png = pad.picture();
  if (!png) return toast(text("mask_empty"), true);
  const press = $("#ds-mask-save");
  press.disabled = true;
  const reply = await tell("save_mask", { id: painted.id, mark: painted.mark, png });
  press.disabled = false;
  if (reply.problems.length) return;
  pad.forget();
  painter.close();
  $("#ds-masks").checked = true;
  toast(reply.message);
  thumbs.clear();
  await refresh();
  if (viewer.open) enlarge(painted.id);
});
// Closing with something painted asks once more, by the same button.
function leaveMask(event) {
  if (!pad.acts || warned) return (warned = false);
  event.preventDefault();
  event.stopImmediatePropagation();
  warned = true;
  toast(text("mask_unsaved"), true);
}
painter.addEventListener("cancel", leaveMask);
painter.querySelector(".ds-close").addEventListener("click", leaveMask, true);

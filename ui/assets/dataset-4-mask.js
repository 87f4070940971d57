// The Dataset page, part 4 of 8: painting a mask. The canvas holds it as transparency: opaque counts
// in full, clear not at all. Each stroke moves what it touches to the brush's weight.
const painter = $(".ds-mask");
const stageBox = $(".ds-stage-box");
const stage = $(".ds-stage");
const canvas = stage.querySelector("canvas");
const brush = canvas.getContext("2d", { willReadFrequently: true });
const LONGEST = 2048; // px of the canvas; a larger mask is scaled by the server
const TINT = "#e0457b";
let painted = null; // {id, mark} of the picture being painted
let base = null; // the mask as it was loaded
let acts = []; // what was done since: strokes, inversions, clearings; undone by replaying the others
let tool = "brush";
let zoom = 1;
let strokeNow = null;
let warned = false; // closing was tried with something unsaved
const fingers = new Map();

async function paintMask(picture) {
  const reply = await tell("open_mask", { id: picture.id });
  if (!reply.size) return;
  painted = { id: picture.id, mark: reply.mark };
  const scale = Math.min(1, LONGEST / Math.max(...reply.size));
  canvas.width = Math.max(1, Math.round(reply.size[0] * scale));
  canvas.height = Math.max(1, Math.round(reply.size[1] * scale));
  stage.querySelector("img").src = picture.original_picture;
  base = reply.mask ? await asTransparency(reply.mask) : null;
  acts = [];
  replay();
  $("#ds-mask-name").textContent = text("mask_of", { name: picture.name });
  $(".ds-mask-note").textContent = base ? text("mask_loaded") : "";
  $("#ds-brush").value = Math.round(Math.max(canvas.width, canvas.height) / 14);
  painter.showModal();
  fitZoom();
}

// A grey picture as one whose transparency is its grey.
async function asTransparency(address) {
  const image = new Image();
  image.src = address;
  await image.decode();
  const made = document.createElement("canvas");
  made.width = canvas.width;
  made.height = canvas.height;
  const pen = made.getContext("2d");
  pen.drawImage(image, 0, 0, made.width, made.height);
  const data = pen.getImageData(0, 0, made.width, made.height);
  for (let i = 0; i < data.data.length; i += 4) {
    data.data[i + 3] = data.data[i];
    data.data[i] = 0xe0;
    data.data[i + 1] = 0x45;
    data.data[i + 2] = 0x7b;
  }
  pen.putImageData(data, 0, 0);
  return made;
}

// ---- what can be done to it ---------------------------------------------------------------------
function line(from, to, { size, weight }) {
  brush.lineCap = brush.lineJoin = "round";
  brush.lineWidth = size;
  brush.strokeStyle = TINT;
  brush.beginPath();
  brush.moveTo(...from);
  brush.lineTo(to[0] + (from[0] === to[0] && from[1] === to[1] ? 0.01 : 0), to[1]);
  brush.globalCompositeOperation = "destination-out";
  brush.globalAlpha = 1;
  brush.stroke();
  if (weight) {
    brush.globalCompositeOperation = "lighter"; // what was taken away comes back at this weight, edges included
    brush.globalAlpha = weight;
    brush.stroke();
  }
  brush.globalAlpha = 1;
  brush.globalCompositeOperation = "source-over";
}

const doing = {
  stroke: (act) => act.points.forEach((point, i) => line(act.points[Math.max(0, i - 1)], point, act)),
  clear: () => brush.clearRect(0, 0, canvas.width, canvas.height),
  invert: () => {
    brush.globalCompositeOperation = "xor";
    brush.fillStyle = TINT;
    brush.fillRect(0, 0, canvas.width, canvas.height);
    brush.globalCompositeOperation = "source-over";
  },
};

function replay() {
  doing.clear();
  if (base) brush.drawImage(base, 0, 0);
  for (const act of acts) doing[act.do](act);
  $("#ds-mask-undo").disabled = !acts.length;
}

function act(made) {
  warned = false;
  acts.push(made);
  $("#ds-mask-undo").disabled = false;
}

for (const name of ["invert", "clear"]) {
  $("#ds-mask-" + name).addEventListener("click", () => {
    act({ do: name });
    doing[name]();
  });
}
$("#ds-mask-undo").addEventListener("click", () => {
  acts.pop();
  replay();
});
$(".ds-mask-tools .at-views").addEventListener("click", (event) => {
  if (!event.target.dataset.tool) return;
  tool = event.target.dataset.tool;
  pressed(event.currentTarget, "tool", tool);
});

// ---- pointer ------------------------------------------------------------------------------------
const place = (event) => {
  const box = canvas.getBoundingClientRect();
  return [((event.clientX - box.left) / box.width) * canvas.width, ((event.clientY - box.top) / box.height) * canvas.height];
};

stage.addEventListener("pointerdown", (event) => {
  fingers.set(event.pointerId, [event.clientX, event.clientY]);
  if (fingers.size === 2 && strokeNow) {
    strokeNow = null; // a second finger moves and zooms; what the first began is taken back
    acts.pop();
    replay();
  }
  if (event.button !== 0 || fingers.size > 1) return;
  event.preventDefault();
  stage.setPointerCapture(event.pointerId);
  const weight = tool === "eraser" ? 0 : Number($("#ds-weight").value);
  strokeNow = { do: "stroke", size: Number($("#ds-brush").value), weight, points: [place(event)] };
  act(strokeNow);
  line(strokeNow.points[0], strokeNow.points[0], strokeNow);
});
stage.addEventListener("pointermove", (event) => {
  if (fingers.size === 2 && fingers.has(event.pointerId)) return pinch(event);
  if (!strokeNow) return;
  for (const one of event.getCoalescedEvents?.().length ? event.getCoalescedEvents() : [event]) {
    const point = place(one);
    line(strokeNow.points.at(-1), point, strokeNow);
    strokeNow.points.push(point);
  }
});
for (const name of ["pointerup", "pointercancel"]) {
  stage.addEventListener(name, (event) => {
    fingers.delete(event.pointerId);
    strokeNow = null;
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
  if ((event.ctrlKey || event.metaKey) && event.key === "z" && acts.length) $("#ds-mask-undo").click();
  if (event.key === "[" || event.key === "]") $("#ds-brush").value = Number($("#ds-brush").value) * (event.key === "]" ? 1.2 : 1 / 1.2);
});

// ---- saving -------------------------------------------------------------------------------------
$("#ds-mask-save").addEventListener("click", async () => {
  const data = brush.getImageData(0, 0, canvas.width, canvas.height);
  let any = 0;
  for (let i = 0; i < data.data.length; i += 4) {
    const grey = data.data[i + 3];
    any |= grey;
    data.data[i] = data.data[i + 1] = data.data[i + 2] = grey;
    data.data[i + 3] = 255;
  }
  if (!any) return toast(text("mask_empty"), true);
  const made = document.createElement("canvas");
  made.width = canvas.width;
  made.height = canvas.height;
  made.getContext("2d").putImageData(data, 0, 0);
  const press = $("#ds-mask-save");
  press.disabled = true;
  const reply = await tell("save_mask", { id: painted.id, mark: painted.mark, png: made.toDataURL("image/png") });
  press.disabled = false;
  if (reply.problems.length) return;
  acts = [];
  painter.close();
  $("#ds-masks").checked = true;
  toast(reply.message);
  thumbs.clear();
  await refresh();
  if (viewer.open) enlarge(painted.id);
});
// Closing with something painted asks once more, by the same button.
function leaveMask(event) {
  if (!acts.length || warned) return (warned = false);
  event.preventDefault();
  event.stopImmediatePropagation();
  warned = true;
  toast(text("mask_unsaved"), true);
}
painter.addEventListener("cancel", leaveMask);
painter.querySelector(".ds-close").addEventListener("click", leaveMask, true);

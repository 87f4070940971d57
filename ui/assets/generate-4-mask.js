// The Generate page, part 4 of 9: painting what is to be drawn anew. Opaque paint is drawn anew, the
// rest stays. What was painted is a list of acts, so the last one can be taken back.
const painter = $("#ge-mask");
const canvas = painter.querySelector("canvas");
const pen = canvas.getContext("2d", { willReadFrequently: true });
const LONGEST = 2048; // px of the canvas; the engine brings a mask to the picture's size
const PAINT = "#e0457b";
let acts = [];
let baseMask = null;
let tool = "brush";
let stroke = null;

async function paintMask() {
  const facts = given[fields.get("image").read()];
  if (!facts) return;
  const scale = Math.min(1, LONGEST / Math.max(...facts.size));
  canvas.width = Math.max(1, Math.round(facts.size[0] * scale));
  canvas.height = Math.max(1, Math.round(facts.size[1] * scale));
  const image = painter.querySelector("img");
  image.src = facts.url;
  await image.decode().catch(() => {});
  const mask = given[fields.get("mask").read()];
  baseMask = mask ? await transparencyOf(mask.url) : null;
  acts = [];
  replay();
  $("#ge-brush").max = Math.round(Math.max(canvas.width, canvas.height) / 2);
  $("#ge-brush").value = Math.round(Math.max(canvas.width, canvas.height) / 10);
  painter.showModal();
}

// A grey picture as one whose transparency is its grey.
async function transparencyOf(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  const made = document.createElement("canvas");
  made.width = canvas.width;
  made.height = canvas.height;
  const context = made.getContext("2d");
  context.drawImage(image, 0, 0, made.width, made.height);
  const data = context.getImageData(0, 0, made.width, made.height);
  for (let i = 0; i < data.data.length; i += 4) {
    data.data[i + 3] = data.data[i];
    [data.data[i], data.data[i + 1], data.data[i + 2]] = [0xe0, 0x45, 0x7b];
  }
  context.putImageData(data, 0, 0);
  return made;
}

function replay() {
  pen.globalCompositeOperation = "source-over";
  pen.clearRect(0, 0, canvas.width, canvas.height);
  if (baseMask) pen.drawImage(baseMask, 0, 0);
  for (const act of acts) perform(act);
  $("#ge-mask-undo").disabled = !acts.length;
}

function perform(act) {
  if (act.kind === "clear") pen.clearRect(0, 0, canvas.width, canvas.height);
  else if (act.kind === "invert") {
    pen.globalCompositeOperation = "xor";
    pen.fillStyle = PAINT;
    pen.fillRect(0, 0, canvas.width, canvas.height);
  } else drawStroke(act, 0);
  pen.globalCompositeOperation = "source-over";
}

function drawStroke(act, from) {
  pen.globalCompositeOperation = act.kind === "eraser" ? "destination-out" : "source-over";
  pen.strokeStyle = pen.fillStyle = PAINT;
  pen.lineWidth = act.width;
  pen.lineCap = pen.lineJoin = "round";
  pen.beginPath();
  const points = act.points.slice(Math.max(from - 1, 0));
  pen.moveTo(...points[0]);
  for (const point of points) pen.lineTo(...point);
  pen.stroke();
  pen.globalCompositeOperation = "source-over";
}

function pointOf(event) {
  const box = canvas.getBoundingClientRect();
  return [((event.clientX - box.left) / box.width) * canvas.width, ((event.clientY - box.top) / box.height) * canvas.height];
}
canvas.addEventListener("pointerdown", (event) => {
  if (event.button > 0) return;
  event.preventDefault();
  canvas.setPointerCapture(event.pointerId);
  stroke = { kind: tool, width: Number($("#ge-brush").value), points: [pointOf(event)] };
  drawStroke(stroke, 0);
});
canvas.addEventListener("pointermove", (event) => {
  if (!stroke) return;
  const from = stroke.points.length;
  for (const each of event.getCoalescedEvents?.() ?? [event]) stroke.points.push(pointOf(each));
  if (stroke.points.length > from) drawStroke(stroke, from);
});
for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => {
  if (stroke) did(stroke);
  stroke = null;
});
function did(act) {
  acts.push(act);
  if (act.kind === "clear" || act.kind === "invert") perform(act);
  $("#ge-mask-undo").disabled = false;
}

for (const press of painter.querySelectorAll("[data-tool]")) {
  press.addEventListener("click", () => {
    tool = press.dataset.tool;
    for (const other of painter.querySelectorAll("[data-tool]")) other.setAttribute("aria-pressed", String(other === press));
  });
}
$("#ge-mask-undo").addEventListener("click", () => { acts.pop(); replay(); });
$("#ge-mask-invert").addEventListener("click", () => did({ kind: "invert" }));
$("#ge-mask-clear").addEventListener("click", () => did({ kind: "clear" }));
painter.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key === "z" && acts.length) { acts.pop(); replay(); }
  if (event.key === "[" || event.key === "]") $("#ge-brush").value = Number($("#ge-brush").value) * (event.key === "]" ? 1.2 : 1 / 1.2);
});

$("#ge-mask-save").addEventListener("click", async () => {
  const data = pen.getImageData(0, 0, canvas.width, canvas.height);
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
  const reply = await tell("give_picture", { picture: made.toDataURL("image/png") });
  if (!reply.given) return;
  fields.get("mask").fill(reply.given.name, reply.given);
  painter.close();
});

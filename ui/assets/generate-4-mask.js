// The Generate page, part 4 of 9: painting what is to be drawn anew. Opaque paint is drawn anew, the
// rest stays. The painting itself is in page-mask.js.
const painter = $("#ge-mask");
const canvas = painter.querySelector("canvas");
const pad = maskPad(canvas, () => ($("#ge-mask-undo").disabled = !pad.acts));
let tool = "brush";

async function paintMask() {
  const facts = given[fields.get("image").read()];
  if (!facts) return;
  const image = painter.querySelector("img");
  image.src = facts.url;
  await image.decode().catch(() => {});
  await pad.open(facts.size, given[fields.get("mask").read()]?.url);
  $("#ge-brush").max = Math.round(Math.max(canvas.width, canvas.height) / 2);
  $("#ge-brush").value = Math.round(Math.max(canvas.width, canvas.height) / 10);
  painter.showModal();
}

canvas.addEventListener("pointerdown", (event) => {
  if (event.button > 0) return;
  event.preventDefault();
  canvas.setPointerCapture(event.pointerId);
  pad.begin(event, Number($("#ge-brush").value), tool === "eraser" ? 0 : 1);
});
canvas.addEventListener("pointermove", (event) => pad.painting && pad.follow(event));
for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, pad.end);

$(".ge-mask-tools").addEventListener("click", (event) => {
  if (!event.target.dataset.tool) return;
  tool = event.target.dataset.tool;
  pressed(event.currentTarget, "tool", tool);
});
for (const name of ["undo", "invert", "clear"]) $("#ge-mask-" + name).addEventListener("click", pad[name]);
painter.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key === "z" && pad.acts) pad.undo();
  if (event.key === "[" || event.key === "]") $("#ge-brush").value = Number($("#ge-brush").value) * (event.key === "]" ? 1.2 : 1 / 1.2);
});

$("#ge-mask-save").addEventListener("click", async () => {
  const picture = pad.picture();
  if (!picture) return toast(text("mask_empty"), true);
  const reply = await tell("give_picture", { picture });
  if (!reply.given) return;
  fields.get("mask").fill(reply.given.name, reply.given);
  painter.close();
});

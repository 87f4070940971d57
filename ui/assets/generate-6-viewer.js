// The Generate page, part 6 of 9: one picture large, what can be done with it, and two compared.
const viewer = $("#ge-viewer");
viewer.tabIndex = -1;
let shelf = []; // pictures that can be leafed through: {url, path, name, text}
let at = 0;
let held = null; // the picture to compare with

function openViewer(items, index) {
  shelf = items;
  at = Math.max(index, 0);
  drawViewer();
  if (!viewer.open) viewer.showModal();
}
function turn(by) {
  if (!shelf.length) return;
  at = (at + by + shelf.length) % shelf.length;
  drawViewer();
}

function drawViewer() {
  const item = shelf[at];
  $("#ge-view-image").src = item.url;
  $("#ge-view-image").alt = item.caption || item.name;
  $("#ge-view-name").textContent = item.caption || item.name;
  $("#ge-view-place").textContent = shelf.length > 1 ? `${at + 1} / ${shelf.length}` : "";
  $("#ge-view-text").textContent = item.text || "";
  $("#ge-send").hidden = true;
  for (const arrow of viewer.querySelectorAll(".ge-prev, .ge-next")) arrow.hidden = shelf.length < 2;
  const link = node("a", "at-btn", text("download"));
  link.href = item.url;
  link.download = item.name;
  const same = held && held.path === item.path;
  $("#ge-view-actions").replaceChildren(
    button("at-btn", text("use_settings"), async () => { const reply = await tell("use_settings", { path: item.path }); if (reply.values) { viewer.close(); takeSettings(reply); } }),
    button("at-btn", text("use_image"), () => startFrom(item, false)),
    button("at-btn", text("use_inpaint"), () => startFrom(item, true)),
    button("at-btn", text("to_dataset"), () => askFolder()),
    held && !same ? button("at-btn", text("compare_with", { name: held.caption || held.name }), () => comparePictures(held, item))
      : button("at-btn", text(same ? "compare_held" : "compare_hold"), () => { held = item; drawViewer(); }),
    link,
  );
  // The button that was pressed is gone with the others; keys are to go on to work.
  if (viewer.open && !viewer.contains(document.activeElement)) viewer.focus();
}

async function startFrom(item, painting) {
  const reply = await tell("use_picture", { path: item.path });
  if (!reply.given) return;
  viewer.close();
  views.show("draw");
  fields.get("image").slot.set(reply.given.name, reply.given);
  $('[data-group="image"]').open = true;
  const [width, height] = reply.given.size;
  fillForm({ width, height });
  if (painting) paintMask();
  else $('[data-group="image"]').scrollIntoView({ block: "nearest" });
}

async function askFolder() {
  const reply = await tell("dataset_folders");
  const folders = reply.folders ?? [];
  $("#ge-folders").replaceChildren(...folders.map((path) => new Option(path, path)));
  $("#ge-send").hidden = false;
  if (!$("#ge-folder").value) $("#ge-folder").value = folders[0] ?? "";
  $("#ge-folder").focus();
}
$("#ge-send-go").addEventListener("click", async () => {
  const reply = await tell("to_dataset", { path: shelf[at].path, folder: $("#ge-folder").value });
  if (reply.message) { toast(reply.message); $("#ge-send").hidden = true; }
});
viewer.querySelector(".ge-prev").addEventListener("click", () => turn(-1));
viewer.querySelector(".ge-next").addEventListener("click", () => turn(1));
viewer.addEventListener("keydown", (event) => {
  if (event.target.matches("input, textarea")) return;
  if (event.key === "ArrowLeft") turn(-1);
  if (event.key === "ArrowRight") turn(1);
});

// ---- two under a slider -------------------------------------------------------------------------
const comparing = $("#ge-compare");
function comparePictures(left, right) {
  for (const [side, item] of [["left", left], ["right", right]]) {
    $(`#ge-${side}`).src = item.url;
    $(`#ge-${side}`).alt = item.caption || item.name;
    $(`#ge-${side}-name`).textContent = item.caption || item.name;
  }
  $("#ge-slider").value = 50;
  slide();
  if (!comparing.open) comparing.showModal();
}
function slide() {
  $(".ge-slide").style.setProperty("--at", $("#ge-slider").value + "%");
}
$("#ge-slider").addEventListener("input", slide);
function follow(event) {
  const box = $(".ge-slide").getBoundingClientRect();
  $("#ge-slider").value = ((event.clientX - box.left) / box.width) * 100;
  slide();
}
$(".ge-slide").addEventListener("pointerdown", (event) => { event.currentTarget.setPointerCapture(event.pointerId); follow(event); });
$(".ge-slide").addEventListener("pointermove", (event) => event.buttons && follow(event));
$(".ge-slide").addEventListener("dragstart", (event) => event.preventDefault());

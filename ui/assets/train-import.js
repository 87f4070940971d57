// Settings from elsewhere: a file that is dropped or chosen, or text that is pasted, and the report of every key.
const importer = $("#dlg-import");
const reportBox = $("#dlg-report");
const LARGEST = 2e6; // characters; the server says what is wrong with longer ones

// The first bytes of a .safetensors file say what it was trained with; the rest stays on this machine.
async function metadataOf(file) {
  const size = Number(new DataView(await file.slice(0, 8).arrayBuffer()).getBigUint64(0, true));
  const header = JSON.parse(await file.slice(8, 8 + Math.min(size, 5e7)).text());
  return header.__metadata__ ?? {};
}

async function importFile(file) {
  let request;
  try {
    request = /\.safetensors$/i.test(file.name) ? { metadata: await metadataOf(file) } : { text: await file.slice(0, LARGEST).text() };
  } catch {
    return toast(text("train.import_unreadable", { name: file.name }), true);
  }
  await importRequest({ name: file.name, ...request });
}

async function importRequest(request) {
  const reply = await ask("import_settings", request);
  if (!reply) return;
  importer.close();
  showReport(reply);
}

// ---- the report -------------------------------------------------------------------------------
const FATES = ["unsupported", "changed", "taken", "idle"];
let imported = null;

function showReport(reply) {
  imported = reply;
  reportBox.querySelector("h2").textContent = text("train.report_title", { name: reply.name || reply.source });
  reportBox.querySelector(".at-dialog-help").textContent = text("train.report_help", { source: reply.source });
  const still = reportBox.querySelector(".at-still");
  still.hidden = !reply.still.length;
  still.replaceChildren(...reply.still.map((problem) => node("li", "", said([problem]))));
  const first = FATES.find((fate) => reply.counts[fate]) ?? "taken";
  const tabs = FATES.map((fate) => {
    const tab = node("button", "", text("train.fate_" + fate), " ", node("b", "", count(reply.counts[fate] ?? 0)));
    tab.type = "button";
    tab.dataset.fate = fate;
    tab.disabled = !reply.counts[fate];
    tab.addEventListener("click", () => showFate(fate));
    return tab;
  });
  reportBox.querySelector(".at-views").replaceChildren(...tabs);
  showFate(first);
  reportBox.showModal();
}

function showFate(fate) {
  for (const tab of reportBox.querySelectorAll(".at-views button")) tab.setAttribute("aria-pressed", String(tab.dataset.fate === fate));
  const head = node("tr", "", ...["file", "here", "why"].map((name) => cell("th", text("train.column_" + name))));
  const rows = imported.entries.filter((entry) => entry.fate === fate).map(reportRow);
  reportBox.querySelector(".at-scroll").replaceChildren(node("table", "at-table", node("thead", "", head), node("tbody", "", ...rows)));
}

function reportRow(entry) {
  const spec = form.spec(entry.target);
  const here = entry.target ? [node("strong", "", spec?.label ?? entry.target), node("span", "", entry.now || text("form.empty"))] : ["\u2013"];
  return node("tr", "", cell("td", node("code", "", entry.key), node("span", "", entry.value)), cell("td", ...here), cell("td", entry.why));
}

reportBox.querySelector(".at-primary").addEventListener("click", () => {
  reportBox.close();
  // What the file does not say of one's own work stays as it is in the form.
  const values = { ...ownValues(), ...imported.values };
  takeOver(values, "", text("train.imported", { name: imported.name || imported.source, n: Object.keys(imported.values).length }), null);
});

// ---- ways in ----------------------------------------------------------------------------------
const picker = importer.querySelector("input[type=file]");
$("#btn-import").addEventListener("click", () => {
  importer.querySelector("textarea").value = "";
  importer.showModal();
});
$("#btn-import-file").addEventListener("click", () => picker.click());
picker.addEventListener("change", () => {
  if (picker.files[0]) importFile(picker.files[0]);
  picker.value = "";
});
$("#btn-import-text").addEventListener("click", () => importRequest({ name: "", text: importer.querySelector("textarea").value }));

const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
const ground = $(".at-train");
let inside = 0; // dragenter and dragleave come for every element on the way
ground.addEventListener("dragenter", (event) => {
  if (!hasFiles(event)) return;
  inside++;
  ground.classList.add("at-dropping");
});
ground.addEventListener("dragleave", (event) => {
  if (hasFiles(event) && --inside <= 0) endDrag();
});
ground.addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
ground.addEventListener("drop", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  endDrag();
  importFile(event.dataTransfer.files[0]);
});
function endDrag() {
  inside = 0;
  ground.classList.remove("at-dropping");
}

// The Dataset page, part 8 of 8: building a training set, preparing caches, opening the page.
const builder = $("#ds-build");
let resultAs = "toml";
let builtNow = 0;

const order = () => ({ ...Object.fromEntries(new FormData(builder)), as: resultAs });

async function propose() {
  const mine = ++builtNow;
  const reply = await ask("propose_build", { order: order() });
  if (mine !== builtNow) return;
  drawProblems($("#ds-build-problems"), reply.problems);
  $("#ds-write").disabled = reply.problems.length > 0;
  $("#ds-build-text").hidden = !reply.text;
  $("#ds-build-text").textContent = reply.text ?? "";
  $("#ds-build-sum").textContent = reply.summary ?? "";
  $("#ds-build-notes").replaceChildren(...(reply.notes ?? []).map((line) => node("li", "", capital(line))));
  if (reply.out) builder.elements.out.placeholder = reply.out;
}
const proposeSoon = later(propose, 250);
builder.addEventListener("input", () => {
  $("#ds-use").disabled = true;
  $("#ds-written").textContent = "";
  proposeSoon();
});
builder.addEventListener("submit", (event) => event.preventDefault());
$(".ds-result .at-views").addEventListener("click", (event) => {
  if (!event.target.dataset.as) return;
  resultAs = event.target.dataset.as;
  pressed(event.currentTarget, "as", resultAs);
  $("#ds-use").disabled = true;
  propose();
});
views.openers.build = () => {
  if (document.activeElement?.form !== builder) propose();
};
changedHooks.push((other) => {
  if (!other) return;
  builder.elements.out.value = "";
  $("#ds-use").disabled = true;
  $("#ds-written").textContent = "";
});

let written = null;
$("#ds-write").addEventListener("click", async () => {
  const press = $("#ds-write");
  press.disabled = true;
  proposeSoon.cancel(); // an answer on its way must not wipe out what writing says
  builtNow++;
  const reply = await ask("write_build", { order: order() });
  press.disabled = false;
  drawProblems($("#ds-build-problems"), reply.problems);
  if (reply.problems.length) return;
  written = reply.options;
  $("#ds-use").disabled = false;
  $("#ds-written").textContent = reply.message;
});
$("#ds-use").addEventListener("click", async () => {
  const reply = await tell("use_in_train", { options: written });
  if (!reply.problems.length) location.href = "./";
});

// ---- preparing ----------------------------------------------------------------------------------
const commands = $(".ds-commands");

function commandBox(one) {
  const copy = button("at-btn", text("copy"), async () => {
    try {
      await navigator.clipboard.writeText(one.command);
    } catch {
      getSelection().selectAllChildren(pre);
      document.execCommand("copy");
    }
    copy.textContent = text("copied");
    setTimeout(() => (copy.textContent = text("copy")), 1500);
  });
  const pre = node("pre", "", one.command);
  return node("div", "ds-command", node("div", "ds-foot", node("strong", "", one.title), copy), pre);
}

async function drawCommands() {
  const reply = await ask("prepare_commands", { model: $("#ds-model").value.trim() });
  if (reply.problems.length) return;
  $("#ds-models").replaceChildren(...reply.models.map((value) => new Option(value, value)));
  if (reply.model && !$("#ds-model").value) $("#ds-model").value = reply.model;
  commands.replaceChildren(...reply.commands.map(commandBox));
}

let watching = 0;
async function watchPreparing(reply) {
  const mine = ++watching;
  for (;;) {
    if (mine !== watching) return;
    drawPreparing(reply);
    if (!reply.active && !reply.lost) return;
    await new Promise((done) => setTimeout(done, 1000));
    if (mine === watching) reply = await ask("prepare_state");
  }
}
function drawPreparing(reply) {
  drawProblems($("#ds-prepare-problems"), reply.problems);
  $("#ds-prepare").disabled = Boolean(reply.active);
  $("#ds-prepare-stop").hidden = !reply.active;
  const numbers = reply.total ? " " + text("prepare_done", { done: count(reply.done), total: count(reply.total) }) : "";
  $("#ds-prepare-line").textContent = (reply.line ?? "") + (reply.active ? numbers : "");
  const bar = $(".ds-job progress");
  bar.hidden = !reply.active;
  bar.max = reply.total || 1;
  if (reply.total) bar.value = reply.done;
  else bar.removeAttribute("value");
  $("#ds-prepare-notes").replaceChildren(...(reply.notes ?? []).map((line) => node("li", "", capital(line))));
}
$("#ds-prepare").addEventListener("click", async () => {
  $("#ds-prepare").disabled = true;
  drawProblems($("#ds-prepare-problems"), []);
  const order = { model: $("#ds-model").value.trim(), latents: $("#ds-latents").checked, texts: $("#ds-texts").checked };
  watchPreparing(await ask("start_prepare", order));
});
$("#ds-prepare-stop").addEventListener("click", async () => watchPreparing(await ask("stop_prepare")));
views.openers.prepare = async () => {
  drawCommands();
  watchPreparing(await ask("prepare_state"));
};
$("#ds-model").addEventListener("input", later(drawCommands, 250));
withBrowse($("#ds-model"), { label: text("prepare_model"), key: "network_weights", either: true });
for (const name of ["reg", "out"]) withBrowse($(`.ds [name=${name}]`), { label: text("build_" + name), folder: true });

// ---- opening the page ---------------------------------------------------------------------------
async function openPage() {
  let reply;
  try {
    reply = await server.open_page({});
  } catch {
    return setTimeout(openPage, 1500);
  }
  drawRecent(reply.recent);
  views.show("pictures");
  $("#ds-path").value = reply.path;
  if (reply.path) await openDataset(reply.path, false);
  $(".ds").dataset.ready = "true";
}
openPage();

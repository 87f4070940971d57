// What a training that is at work can be told: sample, save, pause, stop at once, other prompts.
const tellers = { sample_now: $("#btn-sample"), save_now: $("#btn-save-now"), pause: $("#btn-pause"), stop_now: $("#btn-stop-now") };
const promptsButton = $("#btn-prompts");

afterState = (state) => {
  const box = $(".at-tell");
  box.hidden = !state.active;
  for (const name of ["sample_now", "save_now", "pause"]) tellers[name].disabled = !state.can_tell;
  promptsButton.disabled = !["running", "starting", "paused"].includes(state.state);
  tellers.stop_now.disabled = !state.active;
};

for (const [name, button] of Object.entries(tellers)) {
  button.addEventListener("click", async () => {
    if (name === "stop_now" && !confirm(text("train.stop_now_ask"))) return;
    button.disabled = true;
    const reply = await ask(name, { run });
    if (reply) toast(reply.message);
    await status();
  });
}

// ---- other prompts ----------------------------------------------------------------------------
const prompter = $("#dlg-prompts");
promptsButton.addEventListener("click", async () => {
  const reply = await ask("sample_prompts", { run });
  if (!reply) return;
  prompter.querySelector("textarea").value = reply.text;
  const file = prompter.querySelector(".at-prompt-file");
  file.hidden = !reply.file;
  file.textContent = reply.file ? text("train.prompts_file", { file: reply.file }) : "";
  prompter.querySelector(".at-problem").hidden = true;
  prompter.showModal();
});
prompter.querySelector("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const reply = await server.change_prompts({ run, text: prompter.querySelector("textarea").value });
  const line = prompter.querySelector(".at-problem");
  line.hidden = !reply.problems.length;
  line.textContent = said(reply.problems);
  if (reply.problems.length) return;
  prompter.close();
  toast(reply.message);
});

// ---- going on with other pictures -------------------------------------------------------------
const asker = $("#dlg-pictures");
function askOtherPictures(found) {
  asker.querySelector("h2").textContent = text("train.other_title", found);
  const lists = ["added", "removed"].filter((kind) => found[kind]);
  asker.querySelector(".at-scroll").replaceChildren(
    ...lists.map((kind) => node("p", "", node("strong", "", text("train.other_" + kind, { n: count(found[kind]) }), " "), found[kind + "_names"].join(", "), found[kind] > found[kind + "_names"].length ? ", \u2026" : "")),
  );
  asker.showModal();
}
asker.querySelector(".at-primary").addEventListener("click", () => {
  asker.close();
  act("resume", { other_pictures: true });
});

// The Runs page, part 2 of 3: the card of one run.
const cards = new Map(); // id -> drawn card

async function toggle(id) {
  opened = opened === id ? "" : id;
  cards.delete(id);
  drawList();
  const title = () => list.querySelector(`li[data-run="${CSS.escape(id)}"] .at-run-title`);
  title()?.focus({ preventScroll: true });
  if (!opened) return;
  const reply = await ask("card", { run: id });
  if (!reply || opened !== id) return;
  cards.set(id, drawCard(reply.card));
  drawList();
  title()?.focus({ preventScroll: true });
}

function drawCard(card) {
  const run = runs.find((one) => one.id === card.id) || { state: "", name: card.id };
  const facts = make("dl", "at-card-facts", ...card.facts.map(([key, value]) =>
    make("div", "", make("dt", "", words["runs.fact." + key] ?? key.replace(/_/g, " ")), make("dd", "", value))));
  return make("div", "at-card",
    card.fault ? make("p", "at-problem", card.fault) : null,
    card.usage ? usage(card.usage) : null,
    card.pictures.length ? pictures(card.pictures) : null,
    facts,
    card.messages.length ? messages(card.messages) : null,
    card.files.length ? files(card) : null,
    remarks(card),
    tools(card, run),
  );
}

// Folded, since a run may have much to say; warnings are worth seeing at once.
function messages(told) {
  const rows = told.map(({ kind, text }) => make("li", kind === "warning" ? "at-warned" : "", text));
  const box = make("details", "at-card-told", make("summary", "", say("told", { n: told.length })), make("ul", "", ...rows));
  box.open = told.some(({ kind }) => kind === "warning");
  return box;
}

function usage(text) {
  const press = button(say("copy"), () => copy(text, press));
  return make("p", "at-usage", make("span", "", say("usage")), make("code", "", text), press);
}

async function copy(text, press) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // On an address without HTTPS scripts may not use the clipboard; a selection they may.
    const area = make("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  press.textContent = say("copied");
  setTimeout(() => (press.textContent = say("copy")), 1500);
}

function shot(picture, label) {
  const image = make("img");
  image.src = gradioRoot + picture.small;
  image.alt = label;
  image.loading = "lazy";
  const link = make("a", "at-shot", image, make("small", "", label));
  link.href = gradioRoot + picture.url;
  link.target = "_blank";
  link.rel = "noopener";
  return link;
}

function pictures(rows) {
  return make("div", "at-ends", ...rows.slice(0, 12).map(({ prompt, ends }) => {
    const shots = ends.map((one) => shot(one, say("at_step", { step: one.step.toLocaleString() })));
    return make("figure", "", make("div", "", ...shots), make("figcaption", "", prompt));
  }));
}

function files(card) {
  const rows = [...card.files].reverse().filter((file) => file.kind !== "recovery").map((file) => {
    const press = button(say("copy"), () => copy(file.path, press), "at-btn", `${say("copy")}: ${file.path}`);
    const fork = file.kind === "state" ? null : button(say("fork"), () => goTrain(card.id, file.path), "at-btn", `${say("fork")}: ${file.name}`);
    const draw = file.kind === "state" ? null : button(say("use"), () => goGenerate(card.id, file.path), "at-btn", `${say("use")}: ${file.name}`);
    const about = file.there ? [say("at_step", { step: file.step.toLocaleString() }), file.size] : [say("not_there")];
    const name = make("span", "at-file", file.name, make("small", "", about.filter(Boolean).join(" \u00b7 ")));
    name.title = file.path;
    return make("li", "", name, file.there ? make("span", "at-run-actions", draw, fork, press) : null);
  });
  return make("section", "at-card-files", make("h3", "", say("files")), make("ul", "", ...rows));
}

async function goTrain(run, file) {
  if (await ask("fork", { run, file })) location.href = "./";
}

async function goGenerate(run, file) {
  if (await ask("use", { run, file })) location.href = "./generate";
}

function remarks(card) {
  const tags = make("input");
  tags.value = card.tags.join(", ");
  tags.placeholder = say("tags_hint");
  tags.setAttribute("aria-label", say("tags"));
  const note = make("textarea");
  note.value = card.note;
  note.rows = 2;
  note.placeholder = say("note_hint");
  note.setAttribute("aria-label", say("note"));
  const state = make("small", "at-kept");
  const keep = async () => {
    const reply = await ask("remark", { run: card.id, tags: tags.value.split(/[,\u3001\uff0c]/), note: note.value });
    if (!reply) return;
    Object.assign(card, { tags: reply.tags, note: reply.note });
    tags.value = reply.tags.join(", ");
    state.textContent = say("kept");
    setTimeout(() => (state.textContent = ""), 1500);
  };
  tags.addEventListener("change", keep);
  note.addEventListener("change", keep);
  return make("div", "at-remarks", tags, note, state);
}

function tools(card, run) {
  const active = ["starting", "running", "paused", "stopping"].includes(run.state);
  const folder = button(say("copy_folder"), () => copy(card.folder, folder), "at-btn", `${say("copy_folder")}: ${card.folder}`);
  const inQueue = waiting.waiting.includes(card.id);
  return make("div", "at-run-actions at-card-tools",
    button(say("again"), async () => {
      const reply = await ask("again", { run: card.id });
      if (!reply) return;
      if (!reply.waiting) return (location.href = address(reply.run));
      tell(say("again_waits"));
      draw();
    }),
    button(say("edit"), () => goTrain(card.id, "")),
    !active && !inQueue && (run.resumable || run.state === "created") ? button(say("queue_add"), async () => {
      if (await ask("wait", { act: "add", run: card.id })) draw();
    }) : null,
    folder,
    active ? null : button(say("delete"), async () => {
      if (!(await ask("throw_away", { run: card.id }))) return;
      opened = "";
      tell(say("deleted", { name: run.name }) + " ", button(say("bring_back"), () => bringBack(card.id)));
      draw();
    }),
  );
}

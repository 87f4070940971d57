// The live panel, part 3 of 5: sample pictures, a row a prompt and a column a step, and the enlarged view.
let pictures = []; // {url, small, step, index, prompt, seed}, by step, then by prompt
const addresses = (view) => {
  const base = gradioRoot + view.base;
  return view.samples.items.map(([path, small, step, index, prompt, seed]) => ({
    url: base + path,
    small: base + (small || path),
    step, index, seed,
    prompt: view.samples.prompts[prompt],
  }));
};
const drawSamples = onChange((samples, view) => {
  const had = pictures.length;
  const atEnd = ui.samples.scrollLeft + ui.samples.clientWidth >= ui.samples.scrollWidth - 40;
  pictures = addresses(view).sort((a, b) => a.step - b.step || a.index - b.index);
  const steps = [...new Set(pictures.map((picture) => picture.step))];
  ui.samples.hidden = pictures.length === 0;
  ui.samplesEmpty.hidden = pictures.length > 0;
  const few = pictures.length < samples.count;
  setText(ui.sampleCount, few ? say("newest", { count: pictures.length, total: samples.count }) : pictures.length ? String(samples.count) : "");
  drawRows();
  matchColumns(steps);
  if (!had || atEnd) ui.samples.scrollLeft = ui.samples.scrollWidth;
});
// A row for each prompt, named at its left; a prompt that was changed on the way keeps the newest words.
const labels = make("div", "lv-prompts");
const rowNumber = new Map(); // index of a prompt -> its row, from 2 on: the steps stand in the first
const drawRows = () => {
  const words = new Map(pictures.map((picture) => [picture.index, picture.prompt]));
  const rows = [...words.keys()].sort((a, b) => a - b);
  rowNumber.clear();
  rows.forEach((index, i) => rowNumber.set(index, i + 2));
  labels.replaceChildren(
    ...rows.map((index) => {
      const label = make("span", "lv-prompt", words.get(index));
      label.style.gridRow = rowNumber.get(index);
      label.title = words.get(index);
      return label;
    }),
  );
  labels.hidden = rows.length < 2;
  if (!labels.isConnected) ui.samples.before(labels);
};
// Columns stay as they are while new ones join them, so nothing flickers and the focus is kept.
const matchColumns = (steps) => {
  ui.samples.style.setProperty("--lv-rows", rowNumber.size);
  const old = new Map([...ui.samples.children].map((node) => [node.dataset.facts, node]));
  const columns = steps.map((step) => {
    const mine = pictures.filter((picture) => picture.step === step);
    const facts = JSON.stringify(mine);
    return old.get(facts) || column(step, mine, facts);
  });
  const same = columns.length === ui.samples.children.length && columns.every((node, i) => node === ui.samples.children[i]);
  if (!same) ui.samples.replaceChildren(...columns);
};
const column = (step, mine, facts) => {
  const node = put(make("div", "lv-column"), make("span", "lv-column-step", `${say("step")} ${step.toLocaleString()}`));
  node.dataset.facts = facts;
  for (const picture of mine) node.append(thumb(picture));
  return node;
};
const thumb = (picture) => {
  const press = button("lv-thumb", "", () => enlarge(pictures.findIndex((other) => other.url === picture.url)));
  const image = make("img");
  image.alt = "";
  image.loading = "lazy";
  image.decoding = "async";
  image.src = picture.small;
  image.addEventListener("error", () => press.classList.add("lv-broken"));
  press.title = picture.prompt;
  press.style.gridRow = rowNumber.get(picture.index);
  press.setAttribute("aria-label", say("enlarge", { step: picture.step, prompt: picture.prompt }));
  return put(press, image);
};

const dialog = make("dialog", "lv-dialog");
const large = make("img");
const caption = make("p", "lv-caption");
const place = make("p", "lv-small");
const closer = button("lv-button", say("close"), () => dialog.close());
const before = button("lv-button lv-before", "←", () => enlarge(current - 1));
const after = button("lv-button lv-after", "→", () => enlarge(current + 1));
before.setAttribute("aria-label", say("previous"));
after.setAttribute("aria-label", say("next"));
let current = 0;

// ---- one step against another --------------------------------------------------------------------

const other = make("img", "lv-other");
const divider = make("input", "lv-divider");
divider.type = "range";
divider.min = "0";
divider.max = "100";
divider.step = "0.5";
divider.setAttribute("aria-label", say("divider"));
const against = make("select", "lv-level");
against.setAttribute("aria-label", say("compare_with"));
const beside = make("span", "lv-beside");
const stack = put(make("div", "lv-stack"), large, other, beside);
const drawDivider = () => {
  other.style.clipPath = `inset(0 ${100 - divider.value}% 0 0)`;
  beside.style.left = `${divider.value}%`;
};
const drawAgainst = () => {
  const chosen = pictures.find((picture) => picture.url === against.value);
  for (const node of [other, divider, beside]) node.hidden = !chosen;
  if (!chosen) return;
  other.src = chosen.url;
  other.alt = `${say("step")} ${chosen.step.toLocaleString()}`;
  drawDivider();
};
// The other steps of the same prompt; what was chosen stays chosen while one turns the pages.
const offerOthers = (picture) => {
  const before = pictures.find((one) => one.url === against.value);
  const others = pictures.filter((one) => one.index === picture.index && one.url !== picture.url);
  const options = others.map((one) => new Option(say("against", { step: one.step.toLocaleString() }), one.url));
  against.replaceChildren(new Option(say("compare_none"), ""), ...options);
  against.value = before ? (others.find((one) => one.step === before.step)?.url ?? "") : "";
  against.hidden = !others.length;
  drawAgainst();
};
divider.value = "50";
divider.addEventListener("input", drawDivider);
against.addEventListener("change", drawAgainst);
stack.addEventListener("pointermove", (event) => {
  if (other.hidden) return;
  const box = stack.getBoundingClientRect();
  divider.value = String(Math.min(100, Math.max(0, ((event.clientX - box.left) / box.width) * 100)));
  drawDivider();
});

put(dialog, put(make("div", "lv-frame"), stack), divider, put(make("div", "lv-about"), put(make("div"), place, caption), put(make("div", "lv-turn"), against, before, after, closer)));
root.append(dialog);
const enlarge = (index) => {
  if (!pictures.length) return;
  current = (index + pictures.length) % pictures.length;
  const picture = pictures[current];
  large.src = picture.url;
  large.alt = picture.prompt;
  setText(caption, picture.prompt);
  const seed = picture.seed === null ? "" : ` · ${say("seed", { seed: picture.seed })}`;
  setText(place, `${say("step")} ${picture.step.toLocaleString()}${seed}`);
  offerOthers(picture);
  if (dialog.open) return;
  dialog.showModal();
  after.focus(); // not the choice beside it, which would take the arrow keys
};
// Along the steps with left and right, along the prompts of one step with up and down.
dialog.addEventListener("keydown", (event) => {
  if (event.target === divider || event.target === against) return;
  const here = pictures[current];
  const along = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  const across = { ArrowUp: -1, ArrowDown: 1 }[event.key];
  if (!here || (!along && !across)) return;
  event.preventDefault();
  if (across) return enlarge(current + across);
  const row = pictures.map((picture, i) => [picture, i]).filter(([picture]) => picture.index === here.index);
  const at = row.findIndex(([, i]) => i === current) + along;
  if (row[at]) enlarge(row[at][1]);
});
dialog.addEventListener("click", (event) => {
  if (event.target === dialog || event.target.classList.contains("lv-frame")) dialog.close();
});

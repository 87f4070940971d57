// The live panel, part 3 of 4: sample pictures, a column a step, and the enlarged view.
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
  matchColumns(steps);
  if (!had || atEnd) ui.samples.scrollLeft = ui.samples.scrollWidth;
});
// Columns stay as they are while new ones join them, so nothing flickers and the focus is kept.
const matchColumns = (steps) => {
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
put(dialog, put(make("div", "lv-frame"), large), put(make("div", "lv-about"), put(make("div"), place, caption), put(make("div", "lv-turn"), before, after, closer)));
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
  if (!dialog.open) dialog.showModal();
};
// Along the steps with left and right, along the prompts of one step with up and down.
dialog.addEventListener("keydown", (event) => {
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

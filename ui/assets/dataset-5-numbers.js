// The Dataset page, part 5 of 8: how many of which shape, size and tag, as bars.
const bar = (name, n, most, mark, act) => {
  const stripe = node("span", "ds-stripe", node("i"));
  stripe.firstChild.style.width = (100 * n) / most + "%";
  const label = node("span", "ds-name", mark, name);
  label.title = name;
  const parts = [label, stripe, node("span", "ds-n", count(n))];
  if (!act) return node("li", "", ...parts);
  const made = button("", "", act);
  made.append(...parts);
  return node("li", "", made);
};
const most = (rows) => Math.max(1, ...rows.map((row) => row[1]));

function shape([w, h]) {
  const made = node("i");
  const scale = 18 / Math.max(w, h);
  made.style.width = Math.max(4, w * scale) + "px";
  made.style.height = Math.max(4, h * scale) + "px";
  return made;
}

function drawTags() {
  const wanted = $("#ds-tag-search").value.trim().toLowerCase();
  const fitting = facts.tags.filter(([tag]) => tag.toLowerCase().includes(wanted)).slice(0, 150);
  const empty = node("li", "ds-small", text("no_tags"));
  $("#ds-tag-bars").replaceChildren(...(fitting.length ? fitting.map(([tag, n]) => bar(tag, n, most(facts.tags), "", () => showTag(tag))) : [empty]));
}

views.openers.numbers = () => {
  const shapes = facts.buckets.map(({ size, count: n }) => [size, n]);
  $("#ds-buckets").replaceChildren(...shapes.map(([size, n]) => bar(size.join("\u00d7"), n, most(shapes), shape(size))));
  $("#ds-sizes").replaceChildren(...facts.sizes.map(([name, n]) => bar(name, n, most(facts.sizes))));
  drawTags();
};
$("#ds-tag-search").addEventListener("input", later(drawTags, 80));

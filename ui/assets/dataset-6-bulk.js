// The Dataset page, part 6 of 8: one change to many captions, seen before it is made.
const bulk = $("#ds-bulk");
const operations = JSON.parse(props.operations);
let previewed = null;

bulk.elements.op.append(...operations.map((one) => new Option(one.title, one.name)));
const chosen = () => operations.find((one) => one.name === bulk.elements.op.value);

function drawOperation() {
  const { fields, optional } = chosen();
  const inputs = Object.entries(fields).map(([key, label]) => {
    const input = node("input");
    Object.assign(input, { name: key, autocomplete: "off", spellcheck: false, required: !optional.includes(key) });
    if (key === "tag") input.setAttribute("list", "ds-tags");
    return node("label", "", label, input);
  });
  bulk.querySelector(".ds-fields").replaceChildren(...inputs);
  stale();
}
function stale() {
  previewed = null;
  $("#ds-bulk-apply").disabled = true;
}
bulk.elements.op.addEventListener("change", drawOperation);
bulk.addEventListener("input", stale);

const bulkOrder = () => ({
  op: bulk.elements.op.value,
  values: Object.fromEntries([...bulk.querySelectorAll(".ds-fields input")].map((input) => [input.name, input.value])),
  filter: bulk.elements.scope.value === "shown" ? filter() : {},
});

// Words that went and words that came, between the longest beginning and end that stayed.
function difference(before, after) {
  const split = (line) => line.match(/[^,\s]+[,\s]*|[,\s]+/g) ?? [];
  const [a, b] = [split(before), split(after)];
  let from = 0;
  while (from < a.length && from < b.length && a[from] === b[from]) from++;
  let end = 0;
  while (end < a.length - from && end < b.length - from && a[a.length - 1 - end] === b[b.length - 1 - end]) end++;
  const part = (list, tag) => list.length && node(tag, "", list.join(""));
  return node("p", "", a.slice(0, from).join(""), part(a.slice(from, a.length - end), "del") || "", part(b.slice(from, b.length - end), "ins") || "", a.slice(a.length - end).join(""));
}

bulk.addEventListener("submit", async (event) => {
  event.preventDefault();
  const order = bulkOrder();
  const reply = await tell("preview_bulk", order);
  if (reply.problems.length) return;
  previewed = reply.total ? { ...order, versions: reply.versions } : null;
  $("#ds-bulk-apply").disabled = !previewed;
  const more = reply.total > reply.changes.length ? " " + text("changes_first", { n: count(reply.changes.length) }) : "";
  $("#ds-changes-count").textContent = reply.total ? plural("changes", reply.total) + more : text("changes_zero");
  $(".ds-diffs").replaceChildren(...reply.changes.map((change) => node("li", "", node("b", "", change.name), difference(change.before, change.after))));
});

$("#ds-bulk-apply").addEventListener("click", async () => {
  if (!previewed) return;
  $("#ds-bulk-apply").disabled = true;
  const reply = await tell("apply_bulk", previewed);
  stale();
  if (reply.problems.length) return;
  $(".ds-diffs").replaceChildren(...reply.conflicts.map((one) => node("li", "", node("b", "", text("conflict_in", { name: one.name })), difference(one.theirs, one.yours))));
  $("#ds-changes-count").textContent = reply.message;
  toast(reply.message, reply.conflicts.length > 0);
  await refresh();
});
drawOperation();

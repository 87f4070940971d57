// The Generate page, part 7 of 9: everything that was made. Small copies are asked for when seen.
let madePage = 1;
let madeList = { items: [], total: 0, pages: 1 };
let listing = 0;
const smallOnes = new Map(); // path -> address of its small copy
let wantedSmall = new Map(); // path -> images that wait for it

const askSmall = later(async () => {
  const batch = [...wantedSmall].slice(0, 24);
  if (!batch.length) return;
  wantedSmall = new Map([...wantedSmall].slice(24));
  const reply = await ask("small_ones", { paths: batch.map(([path]) => path) });
  for (const [path, images] of batch) {
    const address = reply.small?.[path];
    if (address) smallOnes.set(path, address);
    for (const image of images) address ? (image.src = address) : image.closest("button")?.classList.add("ge-broken");
  }
  if (wantedSmall.size) askSmall();
}, 40);

const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    watcher.unobserve(entry.target);
    const { path } = entry.target.dataset;
    if (smallOnes.has(path)) entry.target.src = smallOnes.get(path);
    else {
      wantedSmall.set(path, [...(wantedSmall.get(path) ?? []), entry.target]);
      askSmall();
    }
  }
}, { rootMargin: "200px" });

function fillStrip(box, items) {
  box.replaceChildren(...items.map((item, index) => {
    const image = node("img");
    image.alt = item.text.split("\n")[0].slice(0, 120) || item.name;
    image.dataset.path = item.path;
    watcher.observe(image);
    const open = button("ge-open", "", () => openViewer(items, index));
    open.title = image.alt;
    open.append(image);
    return node("li", "", open);
  }));
}

async function listMade() {
  const mine = ++listing;
  const reply = await tell("list_made", { words: $("#ge-words").value, kind: $("#ge-kind").value, page: madePage });
  if (mine !== listing || !reply.items) return;
  madeList = reply;
  fillStrip($("#ge-list"), reply.items);
  const asked = $("#ge-words").value.trim() || $("#ge-kind").value !== "picture";
  $("#ge-none").hidden = reply.total > 0;
  $("#ge-none").textContent = text(asked ? "none_made" : "none_yet");
  const first = (reply.page - 1) * 60 + 1;
  $("#ge-made .ge-shown").textContent = reply.total ? text("shown", { from: count(first), to: count(first + reply.items.length - 1), total: count(reply.total) }) : "";
  const before = button("at-btn", "\u2190", () => { madePage -= 1; listMade(); });
  const after = button("at-btn", "\u2192", () => { madePage += 1; listMade(); });
  before.disabled = reply.page <= 1;
  after.disabled = reply.page >= reply.pages;
  before.setAttribute("aria-label", text("before"));
  after.setAttribute("aria-label", text("after"));
  $("#ge-made .ge-turn").replaceChildren(...(reply.pages > 1 ? [before, after] : []));
}
const searchAgain = later(() => { madePage = 1; listMade(); }, 220);
$("#ge-words").addEventListener("input", searchAgain);
$("#ge-kind").addEventListener("change", searchAgain);
$(".ge-filter").addEventListener("submit", (event) => event.preventDefault());
views.openers.made = () => { madePage = 1; listMade(); };

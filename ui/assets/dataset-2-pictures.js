// The Dataset page, part 2 of 8: the grid of thumbnails. Only the page in view exists.
const PER_PAGE = 60;
const grid = $(".ds-grid");
const thumbs = new Map(); // "id|mark|mask" -> data address, the newest few hundred
let pageNumber = 1;
let listed = { items: [], total: 0, pages: 1 };
let asking = 0;

const filter = () => ({ text: $("#ds-find").value.trim(), tag: $("#ds-tag").value.trim(), only: $("#ds-only").value });
const thumbKey = (item, mask) => `${item.id}|${item.mark}|${mask}`;

function keepThumb(key, address) {
  thumbs.set(key, address);
  if (thumbs.size > 900) for (const old of [...thumbs.keys()].slice(0, 300)) thumbs.delete(old);
}

// The pictures of `items`, a few at a time so that the first ones show at once.
async function fetchThumbs(items, mask, put, wanted = () => true) {
  const missing = items.filter((item) => !thumbs.has(thumbKey(item, mask)));
  for (let from = 0; from < missing.length && wanted(); from += 12) {
    const some = missing.slice(from, from + 12);
    const reply = await ask("thumbnails", { ids: some.map((item) => item.id), mask });
    for (const item of some) {
      const address = reply.thumbs?.[item.id];
      if (address) keepThumb(thumbKey(item, mask), address);
      if (wanted()) put(item, address);
    }
  }
}

function fillThumb(box, address) {
  if (!address) return box.replaceChildren(node("span", "", text("no_picture")));
  const image = node("img");
  image.alt = "";
  image.src = address;
  box.replaceChildren(image);
}

function card(item, mask) {
  const about = node("div", "ds-words", node("b", "", item.name));
  const signs = [item.missing && text("sign_missing"), item.cut && text("sign_cut"), item.masked && text("sign_mask")].filter(Boolean);
  if (signs.length) about.append(node("em", "", signs.join(" \u00b7 ")));
  about.append(node("span", "", item.caption));
  const thumb = node("div", "ds-thumb");
  const made = button("ds-card", "", () => enlarge(item.id));
  made.append(thumb, about);
  made.title = item.name;
  made.dataset.id = item.id;
  const known = thumbs.get(thumbKey(item, mask));
  if (known) fillThumb(thumb, known);
  return node("li", "", made);
}

async function list() {
  if (!facts) return;
  const mine = ++asking;
  grid.classList.add("ds-busy");
  const reply = await ask("list_pictures", { ...filter(), page: pageNumber, per: PER_PAGE });
  if (mine !== asking) return;
  grid.classList.remove("ds-busy");
  if (reply.problems.length) return toast(reply.problems[0].what, true);
  listed = reply;
  pageNumber = reply.page;
  const mask = $("#ds-masks").checked;
  grid.replaceChildren(...reply.items.map((item) => card(item, mask)));
  drawPager();
  const boxes = new Map([...grid.querySelectorAll(".ds-card")].map((made) => [made.dataset.id, made.firstChild]));
  fetchThumbs(reply.items, mask, (item, address) => fillThumb(boxes.get(item.id), address), () => mine === asking);
}

function turn(to) {
  pageNumber = Math.min(Math.max(1, to), listed.pages);
  const top = $(".ds-bar").getBoundingClientRect();
  if (top.top <= 60) window.scrollBy(0, $("#pane-pictures").getBoundingClientRect().top - top.bottom - 10);
  list();
}

function drawPager() {
  const { total, page, pages, items } = listed;
  $(".ds-none").hidden = total > 0;
  const first = (page - 1) * PER_PAGE + 1;
  $(".ds-shown").textContent = total ? text("shown", { from: count(first), to: count(first + items.length - 1), total: count(total) }) : "";
  for (const box of $$(".ds-turn")) {
    box.replaceChildren();
    if (pages < 2) continue;
    const before = button("at-btn", "\u2190", () => turn(page - 1));
    const after = button("at-btn", "\u2192", () => turn(page + 1));
    before.disabled = page <= 1;
    after.disabled = page >= pages;
    before.setAttribute("aria-label", text("page_before"));
    after.setAttribute("aria-label", text("page_after"));
    const number = node("input");
    number.value = page;
    number.inputMode = "numeric";
    number.setAttribute("aria-label", text("page_number"));
    number.addEventListener("change", () => turn(Number.parseInt(number.value, 10) || 1));
    box.append(before, number, node("span", "", text("of_pages", { n: count(pages) })), after);
  }
}

const again = later(() => {
  pageNumber = 1;
  list();
}, 200);
for (const id of ["find", "tag"]) $("#ds-" + id).addEventListener("input", again);
$("#ds-only").addEventListener("change", again);
$("#ds-masks").addEventListener("change", list);
changedHooks.push((other) => {
  if (other) {
    $("#ds-find").value = $("#ds-tag").value = $("#ds-only").value = "";
    pageNumber = 1;
    thumbs.clear();
  }
  list();
});

function showTag(tag) {
  $("#ds-find").value = $("#ds-only").value = "";
  $("#ds-tag").value = tag;
  views.show("pictures");
  again();
}

// The System page: the doctor's report, folders, caches, memory, and how the page looks.
const { text, $, node: make } = pageKit({ prefix: "", root: ".at-system" });
const bytes = (n) => (n >= 1e9 ? (n / 1e9).toFixed(1) + " GB" : n >= 1e6 ? (n / 1e6).toFixed(1) + " MB" : Math.ceil(n / 1e3) + " kB");

function say(message, bad = false) {
  const line = $(".at-said");
  line.hidden = !message;
  line.classList.toggle("at-problem", bad);
  line.textContent = message;
}

async function ask(name, data = {}) {
  try {
    const reply = await server[name](data);
    if (!reply.problems.length) return reply;
    say(reply.problems.map((problem) => [problem.what, problem.why, problem.next].filter(Boolean).join(" ")).join("\n"), true);
  } catch {
    say(text("system.no_answer"), true);
  }
  return null;
}

// ---- health -----------------------------------------------------------------------------------
let report = "";

async function health(again = false) {
  const working = $(".at-working");
  working.hidden = false;
  for (let turn = 0; element.isConnected; turn++) {
    const reply = await ask("health", { again: again && turn === 0 });
    if (!reply) break;
    if (reply.state === "done") {
      report = reply.text;
      $("#sys-copy").hidden = false;
      $(".at-findings tbody").replaceChildren(...reply.findings.map(finding));
      break;
    }
    await new Promise((wake) => setTimeout(wake, 1000));
  }
  working.hidden = true;
}

function finding({ level, name, text: what, fix }) {
  const mark = make("td", "at-level", text("system.level_" + level));
  mark.dataset.level = level;
  return make("tr", "", mark, make("th", "", name), make("td", "", what, fix ? make("span", "", "\u2192 " + fix) : null));
}

// ---- places -----------------------------------------------------------------------------------
async function places() {
  const reply = await ask("places");
  if (!reply) return;
  $(".at-folders tbody").replaceChildren(...reply.folders.map((one) => make("tr", "", make("th", "", one.name), make("td", "", make("code", "", one.path)), make("td", "", one.free == null ? "" : text("system.free", { size: bytes(one.free) })))));
  $("[aria-labelledby=sys-folders] .at-help").textContent = text("system.roots", { places: reply.roots.join(", ") || "\u2013" });
  const rows = reply.caches.map((one) => make("tr", "", make("th", "", one.name), make("td", "", text("system.size", { size: bytes(one.bytes), n: one.files.toLocaleString() })), make("td", "", clearing(one))));
  $(".at-caches tbody").replaceChildren(...(rows.length ? rows : [make("tr", "", make("td", "", text("system.no_caches")))]));
  $("#sys-unload").disabled = !reply.helpers.length;
}

function clearing(cache) {
  const button = make("button", "at-btn", text("system.clear"));
  button.type = "button";
  button.setAttribute("aria-label", text("system.clear_of", { name: cache.name }));
  button.addEventListener("click", async () => {
    if (!confirm(text("system.clear_ask", { name: cache.name, size: bytes(cache.bytes) }))) return;
    const reply = await ask("clear_cache", { kind: cache.kind });
    if (reply) say(text("system.cleared", { size: bytes(reply.freed) }));
    places();
  });
  return button;
}

// ---- buttons and choices ----------------------------------------------------------------------
$("#sys-again").addEventListener("click", () => health(true));
$("#sys-copy").addEventListener("click", async (event) => {
  try {
    await navigator.clipboard.writeText(report);
  } catch {
    const area = document.body.appendChild(make("textarea"));
    area.value = report;
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  event.target.textContent = text("system.copied");
  setTimeout(() => (event.target.textContent = text("system.copy")), 1500);
});
$("#sys-unload").addEventListener("click", async () => {
  const reply = await ask("unload");
  if (reply) say(reply.message);
});

const theme = $("#sys-theme");
try {
  theme.value = localStorage.getItem("atelier-theme") ?? "";
} catch {} // a browser that keeps nothing follows the system
theme.addEventListener("change", () => {
  try {
    if (theme.value) localStorage.setItem("atelier-theme", theme.value);
    else localStorage.removeItem("atelier-theme");
  } catch {}
  const dark = theme.value ? theme.value === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.body.classList.toggle("dark", dark);
});

// The header knows the languages and how one is chosen.
const header = document.querySelector(".at-language");
const language = $("#sys-language");
language.append(...[...header.options].map((option) => new Option(option.textContent, option.value, option.defaultSelected, option.selected)));
language.addEventListener("change", () => {
  header.value = language.value;
  header.dispatchEvent(new Event("change"));
});

health();
places();

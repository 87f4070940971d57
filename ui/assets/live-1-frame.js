// The live panel, part 1 of 5: tools and the skeleton. The parts are joined in this order by ui/live.py and draw
// what its `view` sends. Everything that comes from files, captions or programs is set as text or as an
// attribute, never parsed as HTML.
const root = element.querySelector(".lv");
const words = props.texts || {};
const gradioRoot = ((window.gradio_config || {}).root || "").replace(/\/$/, "");
const still = window.matchMedia("(prefers-reduced-motion: reduce)");
const say = (key, parts) =>
  Object.entries(parts || {}).reduce((text, [name, part]) => text.split(`{${name}}`).join(part), words[`live.${key}`] ?? key);

// ---- small tools ---------------------------------------------------------------------------------

const make = (tag, name, text) => {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text !== undefined) node.textContent = text;
  return node;
};
const put = (parent, ...nodes) => (parent.append(...nodes), parent);
const setText = (node, text) => {
  if (node.textContent !== text) node.textContent = text;
};
const button = (name, label, act) => {
  const node = make("button", name, label);
  node.type = "button";
  node.addEventListener("click", act);
  return node;
};
const svg = (tag, attributes) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  return node;
};
// Runs `draw` only when `facts` differ from the last time.
const onChange = (draw) => {
  let last;
  return (facts, ...rest) => {
    const now = JSON.stringify(facts);
    if (now !== last) draw(facts, ...rest);
    last = now;
  };
};

const number = (value, digits = 3) => {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 1e6)) return value.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e");
  return size >= 1000 ? Math.round(value).toLocaleString() : String(Number(value.toPrecision(digits)));
};
const fixed = (value) => (value === null || value === undefined ? "–" : Math.abs(value) < 0.001 ? number(value) : value.toPrecision(4));
const rate = (value) => {
  if (value === null || value === undefined) return "–";
  return value !== 0 && Math.abs(value) < 0.01 ? value.toExponential(2).replace(/\.?0+e/, "e") : number(value);
};
const duration = (seconds) => {
  if (seconds === null || seconds === undefined) return "–";
  const all = Math.max(0, Math.round(seconds));
  const parts = { s: all % 60, m: Math.floor(all / 60) % 60, h: Math.floor(all / 3600) % 24, d: Math.floor(all / 86400) };
  if (all < 60) return say("seconds", parts);
  if (all < 3600) return say("minutes", parts);
  return all < 86400 ? say("hours", { ...parts, h: Math.floor(all / 3600) }) : say("days", parts);
};
const copy = async (text, node) => {
  try {
    await navigator.clipboard.writeText(text);
  } catch (refused) {
    // Without HTTPS on another address the clipboard is closed to scripts; a selection is not.
    const area = put(document.body, make("textarea")).lastChild;
    area.value = text;
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  const label = node.textContent;
  node.textContent = say("copied");
  setTimeout(() => (node.textContent = label), 1600);
};

// ---- the skeleton --------------------------------------------------------------------------------

const ui = {
  empty: make("p", "lv-empty", say("empty")),
  body: make("div", "lv-body"),
  badge: make("span", "lv-badge"),
  name: make("h2", "lv-name"),
  hint: make("span", "lv-hint"),
  time: make("span", "lv-time"),
  phase: make("span", "lv-phase"),
  left: make("span", "lv-left"),
  bar: make("div", "lv-bar"),
  fill: make("div", "lv-fill"),
  lost: make("p", "lv-lost", say("lost")),
  spoken: make("p", "lv-sr"),
  ending: make("div", "lv-messages lv-ending"),
  messages: make("div", "lv-messages lv-list"),
  jump: button("lv-jump", "", () => {
    messagePart.scrollIntoView({ block: "center", behavior: still.matches ? "auto" : "smooth" });
    ui.messages.focus({ preventScroll: true });
  }),
  chart: make("div", "lv-chart"),
  figures: make("dl", "lv-figures"),
  samples: make("div", "lv-strip"),
  sampleCount: make("span", "lv-count"),
  samplesEmpty: make("p", "lv-none", say("samples_empty")),
  usage: make("p", "lv-usage"),
  saved: make("ul", "lv-saved"),
  savedFault: make("p", "lv-none"),
  savedEmpty: make("p", "lv-none", say("saved_empty")),
  plan: make("dl", "lv-plan"),
  log: make("div", "lv-log"),
  logLast: make("span", "lv-log-last"),
  logFull: make("a", "lv-link", say("log_full")),
};
ui.messages.setAttribute("role", "group");
ui.messages.setAttribute("aria-label", say("messages"));
ui.messages.tabIndex = -1;
ui.lost.hidden = ui.usage.hidden = ui.savedFault.hidden = true;
ui.savedFault.setAttribute("role", "alert");
ui.spoken.setAttribute("role", "status");
ui.bar.setAttribute("role", "progressbar");
ui.bar.setAttribute("aria-valuemin", "0");
ui.bar.setAttribute("aria-valuemax", "100");
ui.samples.tabIndex = 0;
ui.samples.setAttribute("role", "group");
ui.samples.setAttribute("aria-label", say("samples"));
ui.log.tabIndex = 0;
ui.log.setAttribute("role", "log");
ui.log.setAttribute("aria-live", "off");
ui.log.setAttribute("aria-label", say("log_label"));
ui.logFull.target = "_blank";
ui.logFull.rel = "noopener";
root.setAttribute("role", "region");
root.setAttribute("aria-label", say("region"));

const part = (title, name, ...nodes) => {
  const head = put(make("div", "lv-part-head"), make("h3", "", title));
  if (nodes[0] && nodes[0].classList.contains("lv-count")) head.append(nodes.shift());
  return put(make("section", `lv-part ${name}`), head, ...nodes);
};
const logBox = make("details", "lv-logbox");
const copyLog = button("lv-button", say("copy"), () => copy((search.on ? search.lines : logLines()).join("\n"), copyLog));
const wrapLog = button("lv-button", say("wrap"), () => {
  const on = ui.log.classList.toggle("lv-wrap");
  wrapLog.setAttribute("aria-pressed", String(on));
});
wrapLog.setAttribute("aria-pressed", "false");
put(
  logBox,
  put(make("summary"), make("span", "lv-summary", say("log")), ui.logLast),
  put(make("div", "lv-tools"), copyLog, wrapLog, ui.logFull),
  ui.log,
);
const messagePart = part(say("messages"), "lv-messages-part", ui.messages);
const planBox = put(make("details", "lv-planbox"), put(make("summary"), make("span", "lv-summary", say("plan"))), ui.plan);
put(
  ui.body,
  put(make("header", "lv-head"), ui.badge, ui.name, ui.hint, ui.jump, ui.time),
  put(make("div", "lv-progress"), put(make("div", "lv-line"), ui.phase, ui.left), put(ui.bar, ui.fill)),
  ui.lost,
  ui.ending,
  put(make("div", "lv-main"), ui.chart, ui.figures),
  part(say("samples"), "lv-samples", ui.sampleCount, ui.samples, ui.samplesEmpty),
  part(say("saved"), "lv-files", ui.usage, ui.saved, ui.savedFault, ui.savedEmpty),
  messagePart,
  planBox,
  logBox,
  ui.spoken,
);
put(root, ui.empty, ui.body);
ui.body.hidden = true;

// The live panel, part 4 of 5: the log, its newest lines as they come, or lines found in all of it.
let log = { run: null, from: null, lines: new Map(), end: 0, asked: false };
const logLines = () => [...log.lines.keys()].sort((a, b) => a - b).map((key) => log.lines.get(key));
const takeLines = (start, lines) => lines.forEach((line, i) => log.lines.set(start + i, line));
const drawLog = (view) => {
  const news = view.log;
  if (log.run !== view.run) search.at = 0;
  if (log.run !== view.run || log.from !== news.from) log = { run: view.run, from: news.from, lines: new Map(), end: 0, asked: false };
  takeLines(news.start, news.lines);
  log.end = news.start + news.lines.length;
  for (const key of log.lines.keys()) if (key < log.end - 400 || key >= log.end) log.lines.delete(key);
  ui.logFull.href = `${gradioRoot}${view.base}log.txt`;
  setText(ui.logLast, news.lines[news.lines.length - 1] || say("log_empty"));
  if (logBox.open && !search.on) fillLog(news.oldest);
  if (logBox.open && search.on && (view.active || !search.at) && Date.now() - search.at > 4000) findInLog();
};
// What is older than the last update's lines is fetched once, when somebody looks.
const fillLog = async (oldest) => {
  const [mine, first] = [log, Math.min(...log.lines.keys(), log.end)];
  const gaps = log.lines.size < log.end - Math.max(oldest, log.end - 400);
  if (gaps && !log.asked && first > oldest - 1 && server.live_log) {
    log.asked = true;
    try {
      const got = await server.live_log([log.run, oldest]);
      if (mine === log) got.lines.forEach((line, i) => got.start + i < log.end && log.lines.set(got.start + i, line));
    } catch (gone) {
      log.asked = false;
    }
    if (mine === log) log.asked = false;
  }
  if (!search.on) paintLog();
};
const LEVELS = [
  ["lv-bad", /error\b|\btraceback\b|exception\b|\bfatal\b/i],
  ["lv-warn", /\bwarn(ing)?\b/i],
];
const paintLog = onChangeOf(
  () => (search.on ? search.lines : logLines()),
  (lines) => {
    const atEnd = ui.log.scrollTop + ui.log.clientHeight >= ui.log.scrollHeight - 24;
    const rows = lines.map((line) => {
      const level = LEVELS.find(([, pattern]) => pattern.test(line));
      return make("div", level ? level[0] : "", line || " ");
    });
    ui.log.replaceChildren(...rows);
    if (atEnd) ui.log.scrollTop = ui.log.scrollHeight;
  },
);
function onChangeOf(get, draw) {
  const update = onChange(draw);
  return () => update(get());
}
logBox.addEventListener("toggle", async () => {
  if (!logBox.open || !shown || search.on) return;
  await fillLog(shown.log.oldest);
  ui.log.scrollTop = ui.log.scrollHeight;
});

// ---- search --------------------------------------------------------------------------------------

const search = { on: false, lines: [], at: 0, turn: 0 };
const searchWords = make("input", "lv-search");
searchWords.type = "search";
searchWords.placeholder = say("log_search");
searchWords.setAttribute("aria-label", say("log_search"));
const searchLevel = make("select", "lv-level");
searchLevel.setAttribute("aria-label", say("log_level"));
for (const level of ["all", "warning", "error"]) searchLevel.append(new Option(say(`log_${level}`), level));
const searchFound = make("span", "lv-small");
searchFound.setAttribute("role", "status");
logBox.querySelector(".lv-tools").prepend(searchWords, searchLevel, searchFound);

const findInLog = async () => {
  const turn = ++search.turn;
  const [words, level] = [searchWords.value.trim(), searchLevel.value];
  search.on = Boolean(words) || level !== "all";
  if (!search.on) {
    setText(searchFound, "");
    return fillLog(shown.log.oldest);
  }
  search.at = Date.now();
  try {
    const found = await server.live_find([shown.run, words, level]);
    if (turn !== search.turn) return;
    search.lines = found.lines;
    const few = found.lines.length < found.total;
    setText(searchFound, few ? say("log_found_of", { count: found.lines.length, total: found.total }) : say("log_found", { count: found.total }));
    paintLog();
  } catch (gone) {
    search.at = 0; // asked again with the next update
  }
};
let searchTimer = 0;
searchWords.addEventListener("input", () => {
  clearTimeout(searchTimer);
  searchTimer = setTimeout(findInLog, 250);
});
searchLevel.addEventListener("change", findInLog);

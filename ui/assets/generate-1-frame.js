// The Generate page, part 1 of 9: its views. What it shares with other pages is in page-kit.js.
// `element`, `props` and `server` come from the page. Texts from files are set as text, never as HTML.
const { words, text, $, $$, node, button, count, plural, capital, later, ask, tell, drawProblems, toast, tabbed, pressed, closing } = pageKit({ prefix: "gen.", root: ".ge" });
const views = tabbed({ bar: ".ge-tabs", pane: "#ge-", first: "draw" });
closing(".ge-close");

const readFile = (file) => new Promise((done, failed) => {
  const reader = new FileReader();
  reader.addEventListener("load", () => done(reader.result));
  reader.addEventListener("error", () => failed(reader.error));
  reader.readAsDataURL(file);
});

// The Generate page, part 8 of 9: grids: their axes, and the cells as they are finished.
const HINTS = { file: 3, prompt: 3 }; // rows of the box in which an axis is written
let axisKeys = [];
let openGrid = null; // the grid that is shown
let axisRows = [];

function axisRow(value = {}) {
  const select = node("select");
  select.setAttribute("aria-label", text("axis"));
  select.append(new Option(text("axis_none"), ""), ...axisKeys.map((key) => new Option(text("axis_" + key), key)));
  select.value = value.key ?? "";
  const area = node("textarea");
  area.value = value.text ?? "";
  area.spellcheck = false;
  const place = text("axis_place_" + axisRows.length);
  area.setAttribute("aria-label", place);
  const sized = () => {
    area.rows = Math.max(HINTS[select.value] ?? 1, Math.min(area.value.split("\n").length, 8));
    area.placeholder = select.value ? text("axis_hint_" + select.value) : "";
    area.hidden = !select.value;
    area.wrap = select.value === "file" ? "off" : "soft"; // one file a line
  };
  select.addEventListener("change", () => { sized(); countCells(); });
  area.addEventListener("input", countCells);
  sized();
  axisRows.push({ read: () => ({ key: select.value, text: area.value }) });
  return node("div", "ge-axis", node("span", "", place), select, area);
}
function drawAxes(axes) {
  axisRows = [];
  $("#ge-axes").replaceChildren(...[0, 1, 2].map((index) => axisRow(axes[index])));
  countCells();
}
const readAxes = () => axisRows.map((row) => row.read()).filter((axis) => axis.key && axis.text.trim());

const countCells = later(async () => {
  const axes = readAxes();
  if (!axes.length) return ($("#ge-cells").textContent = "");
  const reply = await ask("count_cells", { axes });
  $("#ge-cells").textContent = reply.problems.length ? capital(reply.problems[0].what) : text("cells", { n: count(reply.cells) });
}, 300);

async function openGrids() {
  const reply = await tell("list_grids");
  if (!reply.grids) return;
  if (!axisKeys.length) {
    axisKeys = reply.axes;
    drawAxes([{ key: "seed", text: "1-3" }, { key: "scale", text: "4, 7, 10" }]);
  }
  $("#ge-run").replaceChildren(...reply.runs.map((run) => new Option(text("run_files", { name: run.name, n: run.files }), run.id)));
  $(".ge-best").hidden = !reply.runs.length;
  $("#ge-grids-list").hidden = !reply.grids.length;
  $("#ge-gridlist").replaceChildren(...reply.grids.map((grid) => {
    const open = button("", "", () => showGrid(grid.id));
    open.dataset.grid = grid.id;
    open.append(node("b", "", grid.name), node("small", "", text("grid_done", { done: count(grid.done), total: count(grid.total) })));
    open.setAttribute("aria-current", String(grid.id === openGrid?.id));
    return node("li", "", open);
  }));
  if (!openGrid && reply.grids.length) showGrid(reply.grids[0].id);
}
views.openers.grids = openGrids;

$("#ge-best").addEventListener("click", async () => {
  const reply = await tell("plan_run", { run: $("#ge-run").value, prompt: readForm().prompt });
  if (!reply.axes) return;
  drawAxes(reply.axes);
  $("#ge-grid-name").value = reply.name;
  fillForm(reply.values);
  await startGrid();
  if ($("#ge-grid-problems").hidden) toast(text("best_filled"));
});

async function startGrid() {
  const press = $("#ge-grid-start");
  press.disabled = true;
  const reply = await ask("start_grid", { values: readForm(), axes: readAxes(), name: $("#ge-grid-name").value.trim() });
  press.disabled = false;
  markWrong(reply.problems);
  drawProblems($("#ge-grid-problems"), reply.problems);
  if (reply.problems.length) return;
  drawGrid(reply);
  openGrids();
  lookLater(0);
}
$("#ge-grid-start").addEventListener("click", startGrid);

async function showGrid(id) {
  const reply = await tell("show_grid", { grid: id });
  if (reply.axes) drawGrid(reply);
  for (const item of $$("#ge-gridlist button")) item.setAttribute("aria-current", String(item.dataset.grid === openGrid?.id));
}

function cellButton(grid, place) {
  const id = place.join("-");
  const cell = node("td");
  const known = grid.cells[id];
  cell.dataset.place = id;
  cell.style.setProperty("--ratio", grid.ratio);
  if (known) fillCell(grid, cell, id);
  else cell.append(node("div", "ge-empty"));
  return cell;
}
function fillCell(grid, cell, id) {
  const image = node("img");
  image.loading = "lazy";
  image.src = grid.cells[id].small || grid.cells[id].url;
  image.alt = labelOf(grid, id);
  const open = button("ge-open", "", () => {
    const items = cellItems(grid);
    openViewer(items, items.findIndex((item) => item.place === id));
  });
  open.append(image);
  cell.replaceChildren(open);
}
const labelOf = (grid, id) => id.split("-").map((index, axis) => grid.axes[axis].labels[index]).join(", ");
const cellItems = (grid) => Object.entries(grid.cells)
  .sort(([a], [b]) => placed(a.split("-").reverse().map(Number), b.split("-").reverse().map(Number)))
  .map(([id, cell]) => ({ ...cell, place: id, name: id + ".png", caption: labelOf(grid, id), text: cell.text ?? "" }));

function drawGrid(grid) {
  openGrid = grid;
  const [columns, rows, blocks] = [0, 1, 2].map((axis) => grid.axes[axis]?.labels ?? [""]);
  const tables = blocks.map((title, block) => {
    const corner = grid.axes.length > 1 ? [node("th")] : [];
    const head = node("tr", "", ...corner, ...columns.map((label) => node("th", "", label)));
    const body = rows.map((label, row) => node("tr", "", ...(grid.axes.length > 1 ? [node("th", "", label)] : []),
      ...columns.map((_, column) => cellButton(grid, [column, row, block].slice(0, grid.axes.length)))));
    return node("div", "", title && node("h3", "", title), node("div", "ge-scroll", node("table", "", node("thead", "", head), node("tbody", "", ...body))));
  });
  const actions = node("div", "ge-actions");
  $("#ge-grid").replaceChildren(
    node("div", "ge-grid-head", node("h2", "", grid.name), node("span", "ge-small ge-grid-done"), actions),
    node("p", "ge-small", grid.prompt), ...tables, node("div", "ge-votes"), node("p", "ge-small", grid.folder),
  );
  drawGridActions();
  drawVotes(grid);
}

function drawGridActions() {
  const grid = openGrid;
  const running = grid.wanted || (now.busy && now.grid === grid.id);
  const done = text("grid_done", { done: count(grid.done), total: count(grid.total) });
  const atWork = now.busy && now.kind === "grid" && now.grid === grid.id;
  $(".ge-grid-done").textContent = atWork && now.state !== "drawing" ? `${done} \u00b7 ${statusLine()}` : done;
  const listed = $(`#ge-gridlist [data-grid="${CSS.escape(grid.id)}"] small`);
  if (listed) listed.textContent = done;
  const actions = [];
  if (running) actions.push(button("at-btn", text("stop"), async () => take(await tell("stop", seen()))));
  else if (grid.done < grid.total) actions.push(button("at-btn", text("grid_continue"), async () => { const reply = await tell("continue_grid", { grid: grid.id }); if (reply.axes) drawGrid(reply); lookLater(0); }));
  if (grid.can_vote && grid.done > 1) actions.push(button("at-btn at-primary", text("vote"), () => openVote()));
  if (grid.sheet) {
    const link = node("a", "at-btn", text("sheet"));
    link.href = grid.sheet;
    link.download = grid.id + ".png";
    actions.push(link);
  }
  $(".ge-grid-head .ge-actions").replaceChildren(...actions);
}

// Cells of the open grid as they are finished; at its end the sheet is there too.
let gridBusy = false;
let gridState = "";
shotHooks.push((state, fresh) => {
  if (!openGrid || state.kind !== "grid" || state.grid !== openGrid.id) return;
  for (const shot of fresh) {
    const id = shot.place.join("-");
    if (openGrid.cells[id]) continue;
    openGrid.cells[id] = { url: shot.url, small: "", path: shot.path, text: shot.text };
    openGrid.done += 1;
    const cell = $(`#ge-grid td[data-place="${id}"]`);
    if (cell) fillCell(openGrid, cell, id);
  }
  if (state.problems.length) drawProblems($("#ge-grid-problems"), state.problems);
  if (gridBusy && !state.busy) showGrid(openGrid.id).then(openGrids);
  else if (fresh.length || gridBusy !== state.busy || gridState !== state.state) drawGridActions();
  gridBusy = state.busy;
  gridState = state.state;
});

// Choosing a file or folder of the server. makeFiles(root, server, text) -> choose({key, path, folder}) -> path or null.
// `server` has browse and browsed; a page that uses it offers both.
function makeFiles(root, server, text) {
  const make = (tag, className, ...children) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    made.append(...children.filter((child) => child != null));
    return made;
  };
  const press = (className, label, act) => {
    const made = make("button", className, label);
    made.type = "button";
    made.addEventListener("click", act);
    return made;
  };
  const title = make("h2", "");
  title.id = "files-title";
  const address = make("input", "");
  address.type = "text";
  address.spellcheck = false;
  address.setAttribute("aria-label", text("files.address"));
  const up = press("at-btn", "\u2191", () => go(shown.parent));
  up.setAttribute("aria-label", text("files.up"));
  const places = make("div", "at-file-places");
  const list = make("div", "at-file-list");
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", text("files.content"));
  const line = make("p", "at-dialog-help");
  line.setAttribute("role", "status");
  const use = press("at-btn at-primary", text("files.use"), () => end(chosen ?? shown.path));
  const box = make("dialog", "at-files", title,
    make("form", "at-file-address", up, address), places, list, line,
    make("div", "at-foot", press("at-btn", text("files.cancel"), () => end(null)), use));
  box.setAttribute("aria-labelledby", title.id);
  root.append(box);

  let shown = null; // what the server told of the folder
  let wanted = {};
  let chosen = null;
  let answer = null;

  function end(path) {
    if (path) server.browsed({ path });
    box.close();
    answer?.(path);
    answer = null;
  }

  const bytes = (n) => (n >= 1e9 ? (n / 1e9).toFixed(1) + " GB" : n >= 1e6 ? (n / 1e6).toFixed(0) + " MB" : Math.ceil(n / 1e3) + " kB");

  function pick(row, entry) {
    for (const other of list.children) other.setAttribute("aria-selected", String(other === row));
    chosen = entry.path;
    use.disabled = entry.folder && !wanted.folder && !wanted.either;
  }

  function drawRow(entry) {
    const when = new Date(entry.time * 1000).toLocaleDateString(document.documentElement.lang || undefined);
    const row = press("at-file", "", () => pick(row, entry));
    row.append(make("span", "at-file-name", (entry.folder ? "\u{1F4C1} " : "") + entry.name), make("span", "", entry.folder ? "" : bytes(entry.size)), make("span", "", when));
    row.setAttribute("role", "option");
    row.setAttribute("aria-selected", "false");
    row.addEventListener("dblclick", () => (entry.folder ? go(entry.path) : end(entry.path)));
    row.addEventListener("keydown", (event) => {
      const next = { ArrowDown: row.nextElementSibling, ArrowUp: row.previousElementSibling }[event.key];
      if (next) next.focus();
      else if (event.key === "Enter") (entry.folder ? go(entry.path) : end(entry.path));
      else return;
      event.preventDefault();
    });
    return row;
  }

  function place(path, name) {
    const button = press("at-quiet", name, () => go(path));
    button.title = path;
    return button;
  }

  async function go(path) {
    let found;
    try {
      found = await server.browse({ path, key: wanted.key });
    } catch {
      found = { problems: [{ what: text("train.no_answer") }] };
    }
    if (found.problems.length) return (line.textContent = found.problems.map((problem) => problem.what).join(" "));
    shown = found;
    chosen = null;
    address.value = found.path;
    up.disabled = !found.parent;
    use.disabled = !wanted.folder && !wanted.either;
    use.textContent = text(wanted.folder ? "files.use_folder" : "files.use");
    list.replaceChildren(...found.entries.filter((entry) => entry.folder || !wanted.folder).map(drawRow));
    list.scrollTop = 0;
    const said = [found.entries.length ? "" : text("files.empty"), found.pictures ? text("files.pictures", { n: found.pictures }) : "", found.more ? text("files.more", { n: found.more }) : ""];
    line.textContent = said.filter(Boolean).join(" ");
    const name = (one) => one.split(/[\\/]/).filter(Boolean).pop() ?? one;
    places.replaceChildren(...found.places.map((one) => place(one.path, one.name)), ...found.recent.slice(0, 5).map((one) => place(one, "\u21bb " + name(one))));
  }

  box.querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    go(address.value);
  });
  box.addEventListener("cancel", (event) => {
    event.preventDefault();
    end(null);
  });

  // folder: only folders are chosen; either: a folder does as well, as for models in diffusers' layout.
  return async ({ key, path, label, folder = false, either = false }) => {
    wanted = { key, folder, either };
    title.textContent = label;
    line.textContent = "";
    await go(path ?? "");
    box.showModal();
    (list.firstElementChild ?? address).focus();
    return new Promise((resolve) => (answer = resolve));
  };
}

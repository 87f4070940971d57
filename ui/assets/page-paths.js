// A button beside a field that holds a path: a file or folder of the server is chosen with it. Stands after
// files.js; the page offers browse and browsed, and gives the words in props.fields.
const withBrowse = (() => {
  const words = JSON.parse(props.fields);
  const text = (key, parts = {}) => (words[key] ?? key).replace(/\{(\w+)\}/g, (_, name) => parts[name] ?? "");
  let choose = null;
  // input: the field, in a page already or not. wanted: its label, and what files.js asks for (key, folder, either).
  return (input, wanted) => {
    const control = document.createElement("span");
    control.className = "at-control";
    const button = document.createElement("button");
    Object.assign(button, { type: "button", className: "at-paste", textContent: text("form.browse") });
    button.setAttribute("aria-label", text("form.browse_for", { label: wanted.label }));
    button.addEventListener("click", async () => {
      choose ??= makeFiles(element.firstElementChild, server, text);
      const found = await choose({ ...wanted, path: input.value });
      if (found == null) return;
      input.value = found;
      for (const type of ["input", "change"]) input.dispatchEvent(new Event(type, { bubbles: true }));
      input.focus();
    });
    if (input.parentNode) input.replaceWith(control);
    control.append(input, button);
    return control;
  };
})();

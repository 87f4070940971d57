// The rules for cleaning: shown, switched, edited, added.
// Titles of the usual rules are kept in English and shown in the reader's language.
const titleOf = (rule) => page.titles[rule.title] || rule.title;

function ruleNode(rule) {
  const on = make("input");
  Object.assign(on, { type: "checkbox", checked: rule.enabled, ariaLabel: titleOf(rule) || rule.pattern });
  on.addEventListener("change", () => { rule.enabled = on.checked; });
  const title = make("span", "an-rule-title", titleOf(rule) || rule.pattern);
  const inner = make("div", "an-rule-edit",
    ruleText(rule, "title", "rule_title", (text) => { title.textContent = text || rule.pattern; }),
    ruleChoice(rule),
    ruleText(rule, "pattern", "rule_pattern"),
    rule.on === "caption" ? ruleText(rule, "with", "rule_with") : ruleText(rule, "when", "rule_when"),
    button("at-quiet", say("rule_remove"), () => { page.rules.splice(page.rules.indexOf(rule), 1); drawRules(); changed(); }));
  const details = make("details", "", make("summary", "", title, make("small", "", say("rule_" + rule.on))), inner);
  const row = make("li", "", on, details);
  details.open = !rule.pattern;
  return row;
}

function ruleText(rule, key, label, then = () => {}) {
  const node = make("input");
  Object.assign(node, { type: "text", value: (key === "title" ? titleOf(rule) : rule[key]) || "", spellcheck: false });
  if (key !== "title") node.classList.add("an-code");
  node.addEventListener("input", () => { rule[key] = node.value; then(node.value); });
  return make("label", "", say(label), node);
}

function ruleChoice(rule) {
  const node = make("select");
  for (const kind of ["replace", "drop", "drop_several"]) {
    const one = make("option", "", say("rule_kind_" + kind));
    one.value = kind;
    node.append(one);
  }
  node.value = rule.kind;
  node.addEventListener("change", () => { rule.kind = node.value; rule.on = node.value === "replace" ? "caption" : "tags"; drawRules(); });
  return make("label", "", say("rule_kind"), node);
}

function drawRules() {
  const list = make("ul", "", ...page.rules.map(ruleNode));
  const add = button("at-quiet", say("rule_add"), () => {
    page.rules.push({ id: "own_" + Date.now(), title: "", on: "caption", kind: "replace", pattern: "", with: "", when: "", enabled: true });
    drawRules();
  });
  const reset = button("at-quiet", say("rule_reset"), async () => {
    page.rules = (await server.usual_rules({})).rules;
    drawRules();
    changed();
  });
  at(".an-rules").replaceChildren(make("h2", "", say("rules")), make("p", "an-about", say("rules_help")), list, make("div", "an-actions", add, reset));
}

// A trial on a few pictures: what each would get, and for tags the scores as bars with the thresholds.
const BARS = 24;
let composing = 0;

function scoreNode([tag, category, score], limits) {
  const limit = limits[category];
  const fill = make("i");
  fill.style.width = `${(100 * score).toFixed(1)}%`;
  const bar = make("span", "an-bar", fill);
  if (limit != null) {
    const line = make("b");
    line.style.left = `${100 * limit}%`;
    bar.append(line);
  }
  const passes = limit != null && score >= limit;
  const row = make("li", passes ? "an-passes" : "", make("span", "an-tag", tag), bar, make("span", "an-number", score.toFixed(2)));
  row.title = say("cat_" + category);
  return row;
}

function bars(picture, limits) {
  const shown = page.trial.all ? picture.scores : picture.scores.slice(0, BARS);
  const list = make("ol", "an-bars", ...shown.map((score) => scoreNode(score, limits)));
  return list;
}

function card(picture, place) {
  const image = make("img");
  Object.assign(image, { src: picture.shown, alt: picture.name, loading: "lazy" });
  const text = make("p", "an-text", picture.problem || picture.text || say("no_text"));
  text.classList.toggle("an-bad", !!picture.problem);
  const side = make("div", "", make("h3", "", picture.name), text);
  if (picture.scores?.length) side.append(bars(picture, page.trial.limits));
  const node = make("article", "an-card", picture.shown ? image : make("span"), side);
  node.dataset.place = place;
  return node;
}

function drawTrial() {
  const { pictures } = page.trial;
  const nodes = [make("h2", "", say("trial", { n: pictures.length }))];
  if (pictures.some((picture) => picture.scores?.length)) {
    const most = Math.max(...pictures.map((picture) => picture.scores?.length || 0));
    nodes.push(make("p", "an-about", say("trial_help")));
    if (most > BARS) nodes.push(button("at-quiet an-all", say(page.trial.all ? "fewer_bars" : "all_bars"), () => { page.trial.all = !page.trial.all; drawTrial(); }));
  }
  at(".an-result").replaceChildren(...nodes, ...pictures.map(card));
}

function showTrial(result) {
  page.trial = { pictures: result.pictures, limits: {}, all: false };
  drawTrial();
  if (task().live) recompose();
}

// The form changed: the texts are put together anew from the scores that are here already.
function recompose() {
  clearTimeout(composing);
  composing = setTimeout(async () => {
    const trial = page.trial;
    const pictures = trial.pictures.map(({ scores, order }) => ({ scores: scores || [], order: order || [] }));
    const reply = await server.compose(asked({ pictures }));
    marks(reply.problems);
    if (reply.problems.length || page.trial !== trial) return;
    trial.limits = reply.limits;
    trial.pictures.forEach((picture, place) => { if (!picture.problem) picture.text = reply.texts[place]; });
    if (!page.job?.active) drawTrial();
  }, 120);
}

function changesNode(result) {
  const rows = result.changes.map(([name, which, before, after]) => make("li", "", make("strong", "", which ? `${name} \u00b7 ${which}` : name), make("del", "", before), make("ins", "", after || say("no_text"))));
  const heading = make("h2", "", say(rows.length ? "would_change" : "nothing_to_clean", { n: result.changes_total, m: result.unchanged }));
  const left = result.failed_total ? [listNode(say("failed", { n: result.failed_total }), result.failed, result.failed_total)] : [];
  return [heading, ...left, make("ol", "an-changes", ...rows)];
}

// The Generate page, part 9 of 9: the blind vote. The page is told nothing but two pictures until it is over.
const voting = $("#ge-vote");
let pair = null;
let voteBusy = false;

function drawPair(reply) {
  drawProblems($("#ge-vote-problems"), reply.problems);
  pair = reply.pair ?? null;
  if (!pair) return;
  const images = voting.querySelectorAll(".ge-pair img");
  reply.pictures.forEach((address, index) => (images[index].src = address));
  $("#ge-vote-prompt").textContent = reply.prompt;
  $("#ge-vote-count").textContent = plural("vote_count", reply.votes);
}
async function openVote() {
  drawPair(await ask("next_pair", { grid: openGrid.id }));
  voting.showModal();
}
async function choose(choice) {
  if (voteBusy || !pair) return;
  voteBusy = true;
  drawPair(await ask("vote", { grid: openGrid.id, pair, choice }));
  voteBusy = false;
}
for (const press of voting.querySelectorAll("[data-choice]")) press.addEventListener("click", () => choose(press.dataset.choice));
voting.addEventListener("keydown", (event) => {
  const choice = { ArrowLeft: "first", ArrowRight: "second", ArrowDown: "same" }[event.key];
  if (!choice) return;
  event.preventDefault();
  choose(choice);
});
voting.addEventListener("close", () => openGrid && showGrid(openGrid.id));

const percent = (share) => Math.round(share * 100) + " %";
function drawVotes(grid) {
  const box = $(".ge-votes");
  if (!grid.votes) return box.replaceChildren();
  const { rows, votes, clear, lead } = grid.votes;
  const parts = { name: rows[0].label, second: rows[1]?.label ?? "", n: count(votes), chance: percent(lead[0]), low: percent(lead[1]), high: percent(lead[2]) };
  const table = node("table", "ge-standing", node("thead", "", node("tr", "", ...["vote_what", "vote_wins", "vote_chance"].map((key) => node("th", "", text(key))))),
    node("tbody", "", ...rows.map((row) => {
      const bar = node("span", "ge-interval", node("i"), node("b"));
      bar.style.setProperty("--low", row.low * 100 + "%");
      bar.style.setProperty("--high", row.high * 100 + "%");
      bar.style.setProperty("--mid", row.chance * 100 + "%");
      return node("tr", "", node("td", "", row.label), node("td", "", `${row.wins} / ${row.votes}`),
        node("td", "", `${percent(row.chance)} (${percent(row.low)} \u2013 ${percent(row.high)})`, bar));
    })));
  box.replaceChildren(node("h3", "", text("vote_result")), node("p", clear ? "ge-winner" : "", text(clear ? "vote_clear" : "vote_unclear", parts)),
    node("div", "ge-scroll", table), node("p", "ge-small", text("vote_method")));
}

// ---- opening the page ---------------------------------------------------------------------------
(async () => {
  const reply = await ask("open_page");
  if (!reply.fields) return drawProblems($("#ge-problems"), reply.problems);
  given = reply.given;
  drawFiles(reply);
  drawForm(reply.fields, reply.values);
  take(await ask("look", { ...seen(), measure: true }));
  drawEarlier();
  $(".ge").dataset.ready = "";
})();

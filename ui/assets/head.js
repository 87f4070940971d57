// The line at the top of every page: where one is, and light or dark.
const dark = () => document.body.classList.contains("dark");
element.querySelector(".at-theme").addEventListener("click", () => {
  document.body.classList.toggle("dark");
  try {
    localStorage.setItem("atelier-theme", dark() ? "dark" : "light");
  } catch {} // a browser that keeps nothing follows the system again next time
});
const address = new URL(location.href);
if (address.searchParams.has("__theme")) {
  address.searchParams.delete("__theme");
  history.replaceState(null, "", address);
}

// The line at the top of every page: where one is, in which language, and light or dark.
element.querySelector(".at-language").addEventListener("change", (event) => {
  // The server draws every page in this language from now on; what was typed is kept there.
  document.cookie = `${props.cookie}=${event.target.value}; path=/; max-age=34560000; samesite=lax`;
  location.reload();
});
const here = element.querySelector("nav [aria-current]");
if (here) here.parentElement.scrollLeft = here.offsetLeft - (here.parentElement.clientWidth - here.offsetWidth) / 2; // on a narrow page
document.documentElement.lang = props.language; // which letters of those that Japanese and Chinese share
const dark = () => document.body.classList.contains("dark");
element.querySelector(".at-theme").addEventListener("click", () => {
  document.body.classList.toggle("dark");
  try {
    localStorage.setItem("atelier-theme", dark() ? "dark" : "light");
  } catch {} // a browser that keeps nothing follows the system again next time
});
const address = new URL(location.href);
if (address.searchParams.has("__theme")) {
  // Gradio may have looked at the address before the stored theme was put into it.
  const asked = address.searchParams.get("__theme");
  if (asked !== "system") document.body.classList.toggle("dark", asked === "dark");
  address.searchParams.delete("__theme");
  history.replaceState(null, "", address);
}

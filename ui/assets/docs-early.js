// Runs before anything is drawn: light or dark as on all other pages.
const asked = new URL(location.href).searchParams.get("__theme");
let kept = null;
try {
  kept = localStorage.getItem("atelier-theme");
} catch {} // a browser that keeps nothing
const chosen = asked && asked !== "system" ? asked : kept;
const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
document.body.classList.toggle("dark", dark);

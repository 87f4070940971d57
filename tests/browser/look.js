// What a page looks like, as facts: each function returns a list of faults in words. No pixel is compared.
() => {
  const seen = (node) => {
    const box = node.getBoundingClientRect();
    if (box.width < 2 || box.height < 2) return false;
    return node.checkVisibility({ opacityProperty: true, visibilityProperty: true, contentVisibilityAuto: true });
  };
  const words = (node) => [...node.childNodes].filter((one) => one.nodeType === 3).map((one) => one.data).join("").trim();
  const named = (node) => {
    const own = node.id ? "#" + node.id : [...node.classList].map((name) => "." + name).join("");
    return `${node.tagName.toLowerCase()}${own} "${(words(node) || node.placeholder || "").slice(0, 40)}"`;
  };
  const all = () => [...document.querySelectorAll("body *:not(script, style, option, optgroup, svg *)")];

  // ---- room ---------------------------------------------------------------------------------
  // What reaches beyond the window, where one cannot scroll to it or the whole page would have to be scrolled.
  function tooWide() {
    const width = document.documentElement.clientWidth;
    const beyond = (node) => {
      const { left, right } = node.getBoundingClientRect();
      return right > width + 1 || left < -1;
    };
    const scrolled = (node) => node && (/auto|scroll/.test(getComputedStyle(node).overflowX) ? !beyond(node) : scrolled(node.parentElement));
    const wide = all().filter((node) => (words(node) || node.matches("input, select, textarea, button, img, canvas")) && beyond(node) && seen(node) && !node.closest(".at-sr") && !scrolled(node.parentElement));
    const pages = document.querySelector(".at-head nav");
    if (width > 720 && pages.scrollWidth > pages.clientWidth) wide.unshift(pages.lastElementChild);
    const page = document.documentElement.scrollWidth > width ? ["the page scrolls sideways"] : [];
    return [...page, ...wide.slice(0, 4).map((node) => `${named(node)} reaches beyond the window`)];
  }

  // Where the letters of a button stand, and whether they are inside of it and of all that cuts it off.
  function cutOff() {
    const faults = [];
    for (const button of document.querySelectorAll("button, a.at-btn, summary, [role=tab], label, h1, h2, h3")) {
      if (!seen(button) || button.classList.contains("at-sr")) continue;
      const range = document.createRange();
      range.selectNodeContents(button);
      const text = range.getBoundingClientRect();
      if (!text.width) continue;
      for (let node = button; node && node !== document.body; node = node.parentElement) {
        const style = getComputedStyle(node);
        if (/auto|scroll/.test(style.overflowX)) break; // there one can scroll to it
        if (node !== button && style.overflowX === "visible") continue;
        const box = node.getBoundingClientRect();
        if (text.right > box.right + 1.5 || text.left < box.left - 1.5) {
          faults.push(`${named(button)} is cut off by ${Math.round(Math.max(text.right - box.right, box.left - text.left))} px`);
          break;
        }
      }
    }
    return faults;
  }

  // ---- contrast, as WCAG 2 counts it --------------------------------------------------------
  const dot = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
  const known = new Map();
  function rgba(colour) {
    if (!known.has(colour)) {
      dot.clearRect(0, 0, 1, 1);
      dot.fillStyle = colour;
      dot.fillRect(0, 0, 1, 1);
      const [r, g, b, a] = dot.getImageData(0, 0, 1, 1).data;
      known.set(colour, [r, g, b, a / 255]);
    }
    return known.get(colour);
  }
  const over = ([r, g, b, a], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a), 1];
  const light = (colour) => {
    const [r, g, b] = colour.slice(0, 3).map((one) => (one / 255 <= 0.04045 ? one / 255 / 12.92 : ((one / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);

  // The ground behind a node's letters and how strongly they are drawn; null where a picture is the ground.
  function ground(node) {
    const layers = [];
    let strength = 1;
    for (let at = node; at; at = at.parentElement) {
      const style = getComputedStyle(at);
      strength *= Number(style.opacity);
      if (/url|gradient/.test(style.backgroundImage) && !at.matches("select")) return null;
      const colour = rgba(style.backgroundColor);
      if (colour[3] > 0) layers.push(colour);
      if (colour[3] > 0.999) break;
    }
    const base = document.body.classList.contains("dark") ? [0, 0, 0, 1] : [255, 255, 255, 1];
    return { colour: layers.reduceRight((below, layer) => over(layer, below), base), strength };
  }

  function faint() {
    const faults = new Map();
    const check = (node, colour, style, what) => {
      const behind = ground(node);
      if (!behind) return;
      const drawn = [...colour.slice(0, 3), colour[3] * behind.strength];
      const found = ratio(over(drawn, behind.colour), behind.colour);
      const size = parseFloat(style.fontSize);
      const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
      if (found < (large ? 3 : 4.5)) faults.set(`${node.tagName}.${node.className}`, `${what}${named(node)} has a contrast of ${found.toFixed(2)}`);
    };
    for (const node of all()) {
      const off = node.closest(":disabled, [aria-disabled=true], [inert], .at-sr");
      if (off || !seen(node)) continue;
      if (words(node)) {
        const style = getComputedStyle(node);
        check(node, rgba(style.color), style, "");
      }
      if (node.placeholder && !node.value) {
        const style = getComputedStyle(node, "::placeholder");
        const [r, g, b, a] = rgba(style.color);
        check(node, [r, g, b, a * Number(style.opacity)], style, "hint of ");
      }
    }
    return [...faults.values()];
  }

  // ---- words --------------------------------------------------------------------------------
  // Every text that people read or hear, once.
  function texts() {
    const found = new Set();
    for (const node of all()) {
      if (node.closest("code, pre, kbd, [lang]:not(html), main[data-page]") || !seen(node)) continue;
      for (const text of [words(node), node.title, node.placeholder, node.getAttribute("aria-label"), node.alt]) if (text) found.add(text.trim());
    }
    return [...found];
  }

  return { tooWide, cutOff, faint, texts };
}

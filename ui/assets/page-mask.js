// Painting a mask on a canvas, for pages that do so. The canvas holds it as transparency: opaque counts in
// full, clear not at all. Each stroke moves what it touches to the brush's weight. What was done is a list
// of acts, so the last one can be taken back. `changed` is called after each.
function maskPad(canvas, changed) {
  const LONGEST = 2048; // px of the canvas; who takes the mask scales it
  const TINT = [0xe0, 0x45, 0x7b];
  const brush = canvas.getContext("2d", { willReadFrequently: true });
  let base = null; // the mask as it was given
  let acts = [];
  let stroke = null; // the one that is being drawn
  const tint = () => (brush.strokeStyle = brush.fillStyle = `rgb(${TINT})`);
  const sheet = () => Object.assign(document.createElement("canvas"), { width: canvas.width, height: canvas.height });

  // A grey picture as one whose transparency is its grey.
  async function asTransparency(address) {
    const image = new Image();
    image.src = address;
    await image.decode();
    const made = sheet();
    const pen = made.getContext("2d");
    pen.drawImage(image, 0, 0, made.width, made.height);
    const data = pen.getImageData(0, 0, made.width, made.height);
    for (let i = 0; i < data.data.length; i += 4) {
      data.data[i + 3] = data.data[i];
      data.data.set(TINT, i);
    }
    pen.putImageData(data, 0, 0);
    return made;
  }

  function line(from, to, { size, weight }) {
    tint();
    brush.lineCap = brush.lineJoin = "round";
    brush.lineWidth = size;
    brush.beginPath();
    brush.moveTo(...from);
    brush.lineTo(to[0] + (from[0] === to[0] && from[1] === to[1] ? 0.01 : 0), to[1]);
    brush.globalCompositeOperation = "destination-out";
    brush.globalAlpha = 1;
    brush.stroke();
    if (weight) {
      brush.globalCompositeOperation = "lighter"; // what was taken away comes back at this weight, edges included
      brush.globalAlpha = weight;
      brush.stroke();
    }
    brush.globalAlpha = 1;
    brush.globalCompositeOperation = "source-over";
  }

  const doing = {
    stroke: (act) => act.points.forEach((point, i) => line(act.points[Math.max(0, i - 1)], point, act)),
    clear: () => brush.clearRect(0, 0, canvas.width, canvas.height),
    invert: () => {
      tint();
      brush.globalCompositeOperation = "xor";
      brush.fillRect(0, 0, canvas.width, canvas.height);
      brush.globalCompositeOperation = "source-over";
    },
  };
  function replay() {
    doing.clear();
    if (base) brush.drawImage(base, 0, 0);
    for (const act of acts) doing[act.do](act);
    changed();
  }
  function act(made) {
    acts.push(made);
    doing[made.do](made);
    changed();
  }

  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * canvas.width, ((event.clientY - box.top) / box.height) * canvas.height];
  };

  return {
    get acts() { return acts.length; },
    get hasBase() { return base !== null; },
    get painting() { return stroke !== null; },
    // Begin with a mask, or none, for a picture of this size.
    async open(size, address) {
      const scale = Math.min(1, LONGEST / Math.max(...size));
      canvas.width = Math.max(1, Math.round(size[0] * scale));
      canvas.height = Math.max(1, Math.round(size[1] * scale));
      base = address ? await asTransparency(address) : null;
      acts = [];
      stroke = null;
      replay();
    },
    // What was painted is kept elsewhere now.
    forget: () => (acts = []),
    clear: () => act({ do: "clear" }),
    invert: () => act({ do: "invert" }),
    undo() {
      acts.pop();
      replay();
    },
    begin(event, size, weight) {
      stroke = { do: "stroke", size, weight, points: [place(event)] };
      act(stroke);
    },
    follow(event) {
      const events = event.getCoalescedEvents?.() ?? [];
      for (const one of events.length ? events : [event]) {
        const point = place(one);
        line(stroke.points.at(-1), point, stroke);
        stroke.points.push(point);
      }
    },
    end: () => (stroke = null),
    // The mask as an opaque grey PNG, as an address; "" when nothing is painted.
    picture() {
      const data = brush.getImageData(0, 0, canvas.width, canvas.height);
      let any = 0;
      for (let i = 0; i < data.data.length; i += 4) {
        const grey = data.data[i + 3];
        any |= grey;
        data.data.set([grey, grey, grey, 255], i);
      }
      if (!any) return "";
      const made = sheet();
      made.getContext("2d").putImageData(data, 0, 0);
      return made.toDataURL("image/png");
    },
  };
}

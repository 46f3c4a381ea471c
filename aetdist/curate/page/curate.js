"use strict";
// The page of `aetdist curate`: shows one atom after the other and sends what was decided. No address but its own.

const element = (id) => document.getElementById(id);
const dark = matchMedia("(prefers-color-scheme: dark)");
let state = null;   // how far the decisions are
let shown = null;   // the atom on the page, and what is around it
let cross = null;   // x, y, z in Angstrom: where an atom would be added
let busy = false;

async function ask(address, wish) {
  const options = wish === undefined ? {} : {
    method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(wish),
  };
  let answer;
  try {
    answer = await fetch(address, options);
  } catch {
    throw new Error("aetdist curate does not answer; is it still running?");
  }
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.error);
  return content;
}

function say(text, bad = false) {
  element("message").textContent = text;
  element("message").classList.toggle("bad", bad);
}

async function show(rank) {
  shown = await ask(`atom?rank=${rank}`);
  cross = shown.suggestion;
  draw();
}

async function once(work) {
  if (busy) return;
  busy = true;
  try {
    await work();
  } catch (error) {
    say(error.message, true);
  } finally {
    busy = false;
    document.body.dataset.ready = String(Number(document.body.dataset.ready || 0) + 1);
  }
}

const typeName = (type) => type === null ? "" : (state.species[type - 1] ? `${type} (${state.species[type - 1]})` : `${type}`);

function act(action, type = null) {
  return once(async () => {
    if (action === "previous" || action === "next") {
      const rank = shown.rank + (action === "next" ? 1 : -1);
      if (rank >= 0 && rank < state.n_atoms) { say(""); await show(rank); }
      return;
    }
    const wish = {action, number: shown.number, type};
    if (action === "add") {
      if (!cross) { say("Click into a slice to say where.", true); return; }
      wish.place = cross;
      wish.type = state.n_types ? Number(element("add-type").value) : null;
    }
    const rank = shown.rank;
    state = await ask("decide", wish);
    if (action === "undo") {
      say(state.counts && "undone" in state && state.undone !== null ? "Taken back." : "The last decision was taken back.");
      await show(state.undone ?? rank);
    } else if (action === "add") {
      say(`Added an atom${wish.type ? ` of type ${typeName(wish.type)}` : ""}.`);
      await show(rank);
    } else {
      const done = {accept: "accepted", delete: "deleted", retype: `is of type ${typeName(type)} now`}[action];
      say(`Atom ${wish.number} ${done}.`);
      await show(Math.min(rank + 1, state.n_atoms - 1));
    }
  });
}

// -- drawing -----------------------------------------------------------------------------------------

function draw() {
  element("title").textContent = state.title;
  document.title = `${state.title} - aetdist curate`;
  element("progress").max = Math.max(state.n_atoms, 1);
  element("progress").value = state.n_looked_at;
  const counts = state.counts;
  const parts = [["accept", "accepted"], ["delete", "deleted"], ["retype", "retyped"], ["add", "added"], ["move", "moved"]]
    .filter(([key]) => counts[key]).map(([key, word]) => `${counts[key]} ${word}`);
  element("progress-text").textContent =
    `${state.n_looked_at} of ${state.n_atoms} atoms looked at${parts.length ? ": " + parts.join(", ") : ""}`;
  element("table").textContent = state.table;
  element("atom").textContent = `Atom ${shown.number} (${shown.rank + 1} of ${state.n_atoms}, least certain first)`;
  drawFacts();
  drawTypes();
  const pictures = element("pictures");
  if (!pictures.childElementCount) {
    for (const slice of shown.slices) {
      pictures.append(figure(slice.normal, "density"), figure(slice.normal, "difference"));
    }
  }
  for (const slice of shown.slices) {
    for (const kind of ["density", "difference"]) drawSlice(slice, kind);
  }
}

function number(value, digits) {
  return value === null || value === undefined ? "unknown" : value.toFixed(digits);
}

function drawFacts() {
  const facts = [["position x, y, z (\u00c5)", shown.position.map((v) => v.toFixed(2)).join(", ")]];
  facts.push(["certainty", number(shown.certainty, 3)]);
  if (shown.probability !== null) facts.push(["probability of an atom", number(shown.probability, 3)]);
  if (shown.type !== null) facts.push(["type", typeName(shown.type)]);
  if (shown.type_probability) {
    facts.push(["probability of types", shown.type_probability.map((v) => number(v, 2)).join(", ")]);
  }
  if (shown.position_sigma) {
    facts.push(["\u03c3 of x, y, z (pm)", shown.position_sigma.map((v) => v === null ? "unknown" : (100 * v).toFixed(0)).join(", ")]);
  }
  if (shown.intensity !== null) facts.push(["height H (1)", shown.intensity.toPrecision(3)]);
  if (shown.b_factor !== null) facts.push(["B (\u00c5\u00b2)", number(shown.b_factor, 1)]);
  if (shown.origin) facts.push(["came by", shown.origin]);
  if (shown.decision) {
    const {action, type} = shown.decision;
    facts.push(["decided", action === "retype" ? `retype to ${typeName(type)}` : action]);
  }
  element("facts").replaceChildren(...facts.flatMap(([name, value]) => {
    const dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = name;
    dd.textContent = value;
    return [dt, dd];
  }));
  for (const button of document.querySelectorAll("#actions button")) {
    button.classList.toggle("chosen", Boolean(shown.decision) && button.dataset.action === shown.decision.action
      && (shown.decision.action !== "retype" || Number(button.dataset.type) === shown.decision.type));
  }
}

function drawTypes() {
  const types = element("types");
  if (types.childElementCount || !state.n_types) {
    element("add-type-label").hidden = !state.n_types;
    return;
  }
  for (let type = 1; type <= Math.min(state.n_types, 9); type += 1) {
    const button = document.createElement("button"), key = document.createElement("kbd");
    key.textContent = String(type);
    button.append(key, ` is type ${typeName(type)}`);
    button.dataset.action = "retype";
    button.dataset.type = String(type);
    types.append(button);
    const option = document.createElement("option");
    option.value = String(type);
    option.textContent = typeName(type);
    element("add-type").append(option);
  }
}

function figure(normal, kind) {
  const made = document.createElement("figure"), canvas = document.createElement("canvas");
  const caption = document.createElement("figcaption");
  canvas.id = `${kind}-${normal}`;
  canvas.setAttribute("role", "img");
  canvas.addEventListener("click", (event) => {
    const slice = shown.slices.find((one) => one.normal === normal);
    const place = shown.position.map((value, k) => cross ? cross[k] : value);
    const box = canvas.getBoundingClientRect(), frame = frameOf(slice, box.width);
    const u = frame.toAcross(event.clientX - box.left), v = frame.toUp(event.clientY - box.top);
    if (u < frame.low[0] || u > frame.high[0] || v < frame.low[1] || v > frame.high[1]) return;
    place["xyz".indexOf(slice.across)] = u;
    place["xyz".indexOf(slice.up)] = v;
    place["xyz".indexOf(slice.normal)] = slice.at;
    cross = place;
    say(`The cross is at ${place.map((value) => value.toFixed(2)).join(", ")} \u00c5.`);
    draw();
  });
  made.append(canvas, caption);
  return made;
}

function frameOf(slice, size) {
  const rows = slice.density, left = 36, bottom = 34, top = 4, right = 4;
  const low = [slice.from[0] - slice.step[0] / 2, slice.from[1] - slice.step[1] / 2];
  const high = [low[0] + slice.step[0] * rows[0].length, low[1] + slice.step[1] * rows.length];
  const width = size - left - right, height = size - top - bottom;
  return {
    left, top, width, height, low, high,
    across: (u) => left + (u - low[0]) / (high[0] - low[0]) * width,
    up: (v) => top + height - (v - low[1]) / (high[1] - low[1]) * height,
    toAcross: (px) => low[0] + (px - left) / width * (high[0] - low[0]),
    toUp: (py) => low[1] + (top + height - py) / height * (high[1] - low[1]),
  };
}

function colour(kind, value) {
  if (kind === "density") return [value, value, value];
  const part = Math.min(1, Math.abs(value) / 127 * 1.5), paper = dark.matches ? [22, 24, 28] : [255, 255, 255];
  const end = value > 0 ? (dark.matches ? [255, 110, 100] : [178, 24, 43]) : (dark.matches ? [90, 170, 255] : [33, 102, 172]);
  return paper.map((base, k) => Math.round(base + part * (end[k] - base)));
}

function drawSlice(slice, kind) {
  const canvas = element(`${kind}-${slice.normal}`), rows = slice[kind];
  const size = canvas.clientWidth, ratio = window.devicePixelRatio || 1;
  canvas.width = canvas.height = Math.round(size * ratio);
  const pen = canvas.getContext("2d"), style = getComputedStyle(document.documentElement);
  pen.scale(ratio, ratio);
  const frame = frameOf(slice, size), image = new ImageData(rows[0].length, rows.length);
  rows.forEach((row, y) => row.forEach((value, x) => {
    image.data.set([...colour(kind, value), 255], 4 * ((rows.length - 1 - y) * row.length + x));
  }));
  const small = document.createElement("canvas");
  [small.width, small.height] = [image.width, image.height];
  small.getContext("2d").putImageData(image, 0, 0);
  pen.imageSmoothingQuality = "high";
  pen.drawImage(small, frame.left, frame.top, frame.width, frame.height);
  drawAxes(pen, slice, frame, style);
  pen.save();
  pen.beginPath();
  pen.rect(frame.left, frame.top, frame.width, frame.height);
  pen.clip();
  const mark = kind === "density" ? "#35d0ff" : style.getPropertyValue("--ink");
  for (const atom of slice.atoms) drawAtom(pen, frame, atom, mark);
  if (cross && Math.abs(cross["xyz".indexOf(slice.normal)] - slice.at) <= 1) drawCross(pen, slice, frame, kind, style);
  pen.restore();
  const what = kind === "density" ? "volume" : "difference";
  const caption = `${what}, ${slice.normal} = ${slice.at.toFixed(1)} \u00c5`;
  canvas.nextElementSibling.textContent = caption;
  canvas.setAttribute("aria-label", `${caption}; ${slice.across} across, ${slice.up} up, in \u00c5`);
}

function drawAxes(pen, slice, frame, style) {
  pen.strokeStyle = style.getPropertyValue("--line");
  pen.strokeRect(frame.left, frame.top, frame.width, frame.height);
  pen.fillStyle = style.getPropertyValue("--ink");
  pen.font = "11px system-ui, sans-serif";
  pen.textAlign = "center";
  const bottom = frame.top + frame.height;
  for (let u = Math.ceil(frame.low[0] / 4) * 4; u <= frame.high[0]; u += 4) {
    const at = Math.min(Math.max(frame.across(u), frame.left + 8), frame.left + frame.width - 10);
    pen.fillText(String(u), at, bottom + 13);
  }
  pen.fillText(`${slice.across} (\u00c5)`, frame.left + frame.width / 2, bottom + 28);
  pen.textAlign = "right";
  for (let v = Math.ceil(frame.low[1] / 4) * 4; v <= frame.high[1]; v += 4) {
    pen.fillText(String(v), frame.left - 3, Math.min(Math.max(frame.up(v) + 4, frame.top + 9), bottom));
  }
  pen.save();
  pen.translate(9, frame.top + frame.height / 2);
  pen.rotate(-Math.PI / 2);
  pen.textAlign = "center";
  pen.fillText(`${slice.up} (\u00c5)`, 0, 0);
  pen.restore();
}

function drawAtom(pen, frame, atom, mark) {
  const x = frame.across(atom.place[0]), y = frame.up(atom.place[1]);
  const radius = 0.8 / (frame.high[0] - frame.low[0]) * frame.width, own = atom.number === shown.number;
  pen.strokeStyle = pen.fillStyle = mark;
  pen.lineWidth = own ? 3 : 1.2;
  pen.beginPath();
  pen.arc(x, y, radius, 0, 2 * Math.PI);
  pen.stroke();
  if (atom.type !== null && state.n_types > 1) {
    pen.textAlign = "left";
    pen.fillText(String(atom.type), x + radius + 1, y - radius + 5);
  }
}

function drawCross(pen, slice, frame, kind, style) {
  const x = frame.across(cross["xyz".indexOf(slice.across)]), y = frame.up(cross["xyz".indexOf(slice.up)]);
  pen.strokeStyle = kind === "density" ? "#ffd23f" : style.getPropertyValue("--accent");
  pen.lineWidth = 2;
  pen.beginPath();
  for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
    pen.moveTo(x + 3 * dx, y + 3 * dy);
    pen.lineTo(x + 10 * dx, y + 10 * dy);
  }
  pen.stroke();
}

// -- keys and buttons --------------------------------------------------------------------------------

const KEYS = {a: "accept", Enter: "accept", d: "delete", Delete: "delete", n: "add", u: "undo", ArrowLeft: "previous", ArrowRight: "next"};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || !shown) return;
  if (event.target instanceof HTMLSelectElement || (event.key === "Enter" && event.target instanceof HTMLButtonElement)) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (key in KEYS) {
    event.preventDefault();
    act(KEYS[key]);
  } else if (/^[1-9]$/.test(key) && Number(key) <= state.n_types) {
    act("retype", Number(key));
  }
});
document.addEventListener("click", (event) => {
  const button = event.target.closest("#actions button");
  if (button && shown) act(button.dataset.action, button.dataset.type ? Number(button.dataset.type) : null);
});
dark.addEventListener("change", () => { if (shown) draw(); });
window.addEventListener("resize", () => { if (shown) draw(); });

once(async () => {
  state = await ask("state");
  if (!state.n_atoms) { say("The store holds no atom.", true); return; }
  if (state.first === null) say("All atoms have been looked at.");
  await show(state.first ?? 0);
});

// The view of the atoms: what they are coloured by, turned, picked. The data say what there is to colour by: a mode has
// classes, or numbers on a scale.

/** Numbers that the page holds as base64. */
function arrayOf({ type, data }) {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  return new { float32: Float32Array, uint8: Uint8Array, int32: Int32Array }[type](bytes.buffer);
}

/** An element with a class and what it holds. */
function make(tag, name, ...children) {
  const made = document.createElement(tag);
  made.className = name;
  made.append(...children);
  return made;
}

const channels = (colour) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
const UNKNOWN = [140, 140, 140];
const FIRST = { yaw: -0.5, pitch: 1.05, nearer: 1 };

class AtomView {
  constructor(element) {
    this.element = element;
    const find = (selector) => element.querySelector(selector);
    [this.canvas, this.marks] = element.querySelectorAll("canvas");
    [this.legend, this.said, this.number] = [".legend", ".picked dl", ".picked input"].map(find);
    this.spheres = new Spheres(this.canvas);
    this.models = dataOf("atoms-data").models;
    this.side = { ...FIRST };
    find("select")?.addEventListener("change", (event) => this.show(Number(event.target.value)));
    this.number.addEventListener("change", () => this.pick(this.model.number.indexOf(Number(this.number.value))));
    find(".reset").addEventListener("click", () => this.turn({ ...FIRST }));
    find(".nearer").addEventListener("click", () => this.turn({ nearer: this.side.nearer * 1.25 }));
    find(".farther").addEventListener("click", () => this.turn({ nearer: this.side.nearer / 1.25 }));
    document.addEventListener("theme", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    this.listen();
    this.show(0);
  }

  /** Draw a model from the beginning. */
  show(index) {
    const model = this.model = this.models[index];
    for (const holder of [model, ...model.modes]) {
      for (const [name, value] of Object.entries(holder)) if (value?.data) holder[name] = arrayOf(value);
    }
    const axes = [model.x, model.y, model.z];
    this.middle = axes.map((axis) => {
      let [low, high] = [Infinity, -Infinity];
      for (const value of axis) [low, high] = [Math.min(low, value), Math.max(high, value)];
      return (low + high) / 2;
    });
    const places = new Float32Array(3 * model.x.length);
    axes.forEach((axis, k) => axis.forEach((value, i) => { places[3 * i + k] = value - this.middle[k]; }));
    this.places = places;
    this.spheres.setPlaces(places);
    this.side = { ...FIRST };
    this.span = [1, 1];
    for (let i = 0; i < model.x.length; i += 1) {
      this.seen(i).slice(0, 2).forEach((value, k) => { this.span[k] = Math.max(this.span[k], Math.abs(value)); });
    }
    this.element.querySelector(".modes").replaceChildren(...model.modes.filter((mode) => mode.shown).map((mode) => {
      const button = make("button", "", mode.label);
      button.type = "button";
      button.dataset.mode = mode.key;
      button.addEventListener("click", () => this.colour(mode));
      return button;
    }));
    this.colour(model.modes.find((mode) => mode.shown));
    this.pick(-1);
  }

  // -- drawing ---------------------------------------------------------------------------------------

  /** Colour the atoms by a mode. */
  colour(mode) {
    this.mode = mode;
    const { values, classes } = mode;
    const looks = new Uint8Array(4 * values.length);
    const table = classes ? classes.map(({ colour, size }) => [...channels(colour), Math.round(128 * size)]) : this.ramp(mode);
    const step = classes ? 1 : 255 / (mode.high - mode.low);
    for (let i = 0; i < values.length; i += 1) {
      const at = classes ? values[i] : Math.min(255, Math.max(0, Math.round((values[i] - mode.low) * step)));
      looks.set(table[at] ?? [...UNKNOWN, 128], 4 * i); // a value that is not known has no place in the table
    }
    this.spheres.setLooks(looks);
    this.describe();
    this.draw();
  }

  /** 256 colours of a scale. */
  ramp({ colours }) {
    const stops = colours.map(channels);
    return Array.from({ length: 256 }, (_, i) => {
      const at = (i / 255) * (stops.length - 1);
      const k = Math.min(Math.floor(at), stops.length - 2);
      return [...stops[k].map((value, c) => Math.round(value + (at - k) * (stops[k + 1][c] - value))), 128];
    });
  }

  /** Rows of the rotation from the sample to the view: x to the right, y upwards, z to the eye. */
  rotation() {
    const { yaw, pitch } = this.side;
    const [cy, sy, cp, sp] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
    return [[cy, -sy, 0], [sy * cp, cy * cp, sp], [-sy * sp, -cy * sp, cp]];
  }

  /** Pixels of an Angstrom: from the first side all atoms fill the view. */
  zoom() {
    const { width, height } = this.canvas;
    return 0.45 * Math.min(width / this.span[0], height / this.span[1]) * this.side.nearer;
  }

  draw() {
    const ratio = Math.min(devicePixelRatio || 1, 2);
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight].map((n) => Math.round(n * ratio));
    if (!width || !height || !this.mode) return;
    for (const canvas of [this.canvas, this.marks]) {
      if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    }
    const style = getComputedStyle(this.canvas);
    const paper = style.backgroundColor.match(/[\d.]+/g).slice(0, 3).map((value) => value / 255);
    this.spheres.draw(this.rotation(), this.zoom(), this.model.diameter, paper);
    this.mark(style.color, style.backgroundColor, ratio);
  }

  /** Axes, a scale bar and a ring around the atom that is picked, over the spheres. */
  mark(ink, paper, ratio) {
    const [pen, zoom, turn] = [this.marks.getContext("2d"), this.zoom(), this.rotation()];
    const { width, height } = this.marks;
    const { fontFamily } = getComputedStyle(this.element);
    pen.clearRect(0, 0, width, height);
    Object.assign(pen, { font: `${13 * ratio}px ${fontFamily}`, textAlign: "center", textBaseline: "middle", lineJoin: "round" });
    const stroke = (thick, path) => [[paper, thick + 3], [ink, thick]].forEach(([colour, wide]) => {
      Object.assign(pen, { strokeStyle: colour, lineWidth: wide * ratio });
      pen.beginPath();
      path();
      pen.stroke();
    });
    const write = (text, x, y) => {
      Object.assign(pen, { strokeStyle: paper, fillStyle: ink, lineWidth: 4 * ratio });
      pen.strokeText(text, x, y);
      pen.fillText(text, x, y);
    };
    const line = (...ends) => () => ends.forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
    const [x, y, arm] = [46 * ratio, height - 46 * ratio, 26 * ratio];
    "xyz".split("").forEach((name, k) => {
      stroke(1.5, line([x, y], [x + arm * turn[0][k], y - arm * turn[1][k]]));
      write(name, x + 1.45 * arm * turn[0][k], y - 1.45 * arm * turn[1][k]);
    });
    const most = (0.25 * width) / zoom;
    const power = 10 ** Math.floor(Math.log10(most));
    const length = Math.max(...[1, 2, 5].map((f) => f * power).filter((bar) => bar <= most));
    const [right, low] = [width - 20 * ratio, height - 20 * ratio];
    stroke(3, line([right - length * zoom, low], [right, low]));
    pen.textAlign = "right";
    write(`${Number(length.toPrecision(1))} Å`, right, low - 13 * ratio);
    if (this.chosen >= 0) {
      const [at, up] = this.placeOf(this.chosen);
      stroke(2.5, () => pen.arc(at, up, 0.5 * this.model.diameter * zoom + 4 * ratio, 0, 2 * Math.PI));
    }
  }

  /** Where an atom is seen, in Angstrom to the right, upwards and to the eye. */
  seen(index) {
    const place = this.places.subarray(3 * index, 3 * index + 3);
    return this.rotation().map((row) => row[0] * place[0] + row[1] * place[1] + row[2] * place[2]);
  }

  /** The same in pixels of the canvas, to the right and downwards; and in Angstrom to the eye. */
  placeOf(index) {
    const [[x, y, z], zoom] = [this.seen(index), this.zoom()];
    return [this.canvas.width / 2 + zoom * x, this.canvas.height / 2 - zoom * y, z];
  }

  // -- what the user does ----------------------------------------------------------------------------

  turn(change) {
    Object.assign(this.side, change);
    this.side.nearer = Math.min(30, Math.max(0.3, this.side.nearer));
    cancelAnimationFrame(this.waiting);
    this.waiting = requestAnimationFrame(() => this.draw());
  }

  listen() {
    const { canvas } = this;
    let from = null;
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      from = { x: event.clientX, y: event.clientY, ...this.side, moved: false };
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!from) return;
      const [x, y] = [event.clientX - from.x, event.clientY - from.y];
      from.moved ||= Math.hypot(x, y) > 4;
      if (from.moved) this.turn({ yaw: from.yaw + 0.01 * x, pitch: from.pitch + 0.01 * y });
    });
    canvas.addEventListener("pointercancel", () => { from = null; });
    canvas.addEventListener("pointerup", (event) => {
      if (from && !from.moved) this.pick(this.atomAt(event.offsetX, event.offsetY));
      from = null;
    });
    canvas.addEventListener("wheel", (event) => {
      if (document.activeElement !== canvas && !event.ctrlKey) return; // else the page scrolls
      event.preventDefault();
      this.turn({ nearer: this.side.nearer * Math.exp(-0.0015 * event.deltaY) });
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const { yaw, pitch, nearer } = this.side;
      const change = { ArrowLeft: { yaw: yaw - 0.1 }, ArrowRight: { yaw: yaw + 0.1 }, ArrowUp: { pitch: pitch - 0.1 },
        ArrowDown: { pitch: pitch + 0.1 }, "+": { nearer: nearer * 1.25 }, "-": { nearer: nearer / 1.25 } }[event.key];
      if (!change) return;
      event.preventDefault();
      this.turn(change);
    });
  }

  /** The atom that one sees at a place of the canvas (CSS pixels), or -1. */
  atomAt(x, y) {
    const ratio = this.canvas.width / this.canvas.clientWidth;
    const reach = Math.max(0.5 * this.model.diameter * this.zoom(), 3 * ratio);
    let [found, nearest] = [-1, -Infinity];
    for (let i = 0; i < this.model.x.length; i += 1) {
      const [at, up, near] = this.placeOf(i);
      if (near > nearest && Math.hypot(at - x * ratio, up - y * ratio) <= reach) [found, nearest] = [i, near];
    }
    return found;
  }

  /** Say everything about one atom, and ring it; -1: about none. */
  pick(index) {
    this.chosen = index;
    const { model } = this;
    const rows = index < 0 ? [["none", "click one, or give its number"]]
      : [...["x", "y", "z"].map((axis) => [axis, `${model[axis][index].toFixed(2)} Å`]),
        ...model.modes.map((mode) => [mode.label, this.valueOf(mode, index)])];
    if (index >= 0) this.number.value = model.number[index];
    this.said.replaceChildren(...rows.flatMap(([name, value]) => [make("dt", "", name), make("dd", "", value)]));
    this.element.dataset.picked = index < 0 ? "" : model.number[index];
    this.draw();
  }

  valueOf(mode, index) {
    const value = mode.values[index];
    if (mode.classes) return mode.classes[value].name;
    return Number.isFinite(value) ? `${Number(value.toPrecision(3))} ${mode.unit}`.trim() : "not known";
  }

  /** The legend, and which button is pressed. */
  describe() {
    for (const button of this.element.querySelectorAll(".modes button")) {
      button.setAttribute("aria-pressed", String(button.dataset.mode === this.mode.key));
    }
    const { classes, text, unit, low, high, colours } = this.mode;
    if (classes) {
      this.legend.replaceChildren(...classes.map(({ name, colour, count }) => {
        const dot = make("i", "dot");
        dot.style.background = colour;
        return make("span", "key", dot, `${name}: ${count.toLocaleString("en")}`);
      }));
      return;
    }
    const ramp = make("i", "");
    ramp.style.background = `linear-gradient(90deg, ${colours.join(", ")})`;
    const ends = [low, high].map((value) => `${Number(value.toPrecision(2))} ${unit}`.trim());
    this.legend.replaceChildren(make("span", "", text), make("span", "ramp", ends[0], ramp, ends[1]));
  }
}

for (const element of document.querySelectorAll(".atoms3d")) {
  try {
    element.view = new AtomView(element);
    element.dataset.state = "ready";
  } catch (error) {
    element.querySelector(".plot").replaceChildren(make("p", "", `This view needs WebGL (${error.message}).`));
    element.dataset.state = "failed";
  }
}

"use strict";
// Draws, centres the drawing as the training images are, computes the network layer by layer, and shows each layer.
// Images and maps are {maps, side, values}: maps of side x side numbers, one after the other. A vector has side 1.

const network = JSON.parse(document.getElementById("network").textContent);
const bytes = Uint8Array.from(atob(network.numbers), (letter) => letter.charCodeAt(0));
const numbers = new Float32Array(bytes.buffer);

const empty = (maps, side) => ({ maps, side, values: new Float32Array(maps * side * side) });
const each = (input, change) => ({ ...input, values: input.values.map(change) });

const COMPUTE = {
  crop(input, { start, side }) {
    const out = empty(1, side);
    return each(out, (_, at) => input.values[(start + Math.floor(at / side)) * input.side + start + (at % side)]);
  },
  normalize: (input, { mean, scale }) => each(input, (value, at) => (value - numbers[mean + at]) * scale),
  affine: (input, { factor, shift }) => each(input, (value) => value * factor + shift),
  relu: (input) => each(input, (value) => Math.max(value, 0)),
  sigmoid: (input) => each(input, (value) => 1 / (1 + Math.exp(-value))),
  tanh: (input, { amplitude, slope }) => each(input, (value) => amplitude * Math.tanh(slope * value)),
  softmax(input) {
    const largest = Math.max(...input.values);
    const total = input.values.reduce((sum, value) => sum + Math.exp(value - largest), 0);
    return each(input, (value) => Math.exp(value - largest) / total);
  },
  enlarge(input, { side }) { // bilinear, with pixel centres at half numbers
    const weigh = (at) => {
      const place = Math.max(0, ((at + 0.5) * input.side) / side - 0.5);
      const first = Math.floor(place);
      return [first, Math.min(first + 1, input.side - 1), place - first];
    };
    return each(empty(1, side), (_, at) => {
      const [top, bottom, down] = weigh(Math.floor(at / side));
      const [left, right, across] = weigh(at % side);
      const row = (y) => input.values[y * input.side + left] * (1 - across) + input.values[y * input.side + right] * across;
      return row(top) * (1 - down) + row(bottom) * down;
    });
  },
  frame(input, { pixels, value }) {
    const side = input.side + 2 * pixels;
    return each(empty(1, side), (_, at) => {
      const y = Math.floor(at / side) - pixels, x = (at % side) - pixels;
      return Math.min(x, y) >= 0 && Math.max(x, y) < input.side ? input.values[y * input.side + x] : value;
    });
  },
  conv(input, { maps, groups, kernel, stride, padding, weight, bias }) {
    const side = Math.floor((input.side + 2 * padding - kernel) / stride) + 1;
    const out = empty(maps, side), seen = input.maps / groups;
    for (let map = 0; map < maps; map++) {
      const first = Math.floor((map * groups) / maps) * seen;
      for (let y = 0; y < side; y++) {
        for (let x = 0; x < side; x++) {
          let sum = numbers[bias + map];
          for (let from = 0; from < seen; from++) {
            for (let v = 0; v < kernel; v++) {
              const row = y * stride + v - padding;
              if (row < 0 || row >= input.side) continue;
              for (let u = 0; u < kernel; u++) {
                const column = x * stride + u - padding;
                if (column < 0 || column >= input.side) continue;
                sum += numbers[weight + ((map * seen + from) * kernel + v) * kernel + u]
                  * input.values[((first + from) * input.side + row) * input.side + column];
              }
            }
          }
          out.values[(map * side + y) * side + x] = sum;
        }
      }
    }
    return out;
  },
  pool(input, { how, size }) {
    const side = Math.floor(input.side / size);
    return each(empty(input.maps, side), (_, at) => {
      const map = Math.floor(at / side ** 2), y = Math.floor(at / side) % side, x = at % side;
      const window = [];
      for (let v = 0; v < size; v++) {
        for (let u = 0; u < size; u++) window.push(input.values[(map * input.side + y * size + v) * input.side + x * size + u]);
      }
      if (how === "average") return window.reduce((sum, value) => sum + value, 0) / window.length;
      return how === "max" ? Math.max(...window) : Math.min(...window);
    });
  },
  dense(input, { maps, weight, bias }) {
    const count = input.values.length;
    return each(empty(maps, 1), (_, unit) =>
      input.values.reduce((sum, value, at) => sum + value * numbers[weight + unit * count + at], numbers[bias + unit]));
  },
  rbf(input, { maps, weight }) {
    const count = input.values.length;
    return each(empty(maps, 1), (_, unit) =>
      -input.values.reduce((sum, value, at) => sum + (value - numbers[weight + unit * count + at]) ** 2, 0));
  },
};

/** The outputs of all layers for grey levels 0 to 255, `network.side` squared of them, and the probabilities. */
function classify(pixels) {
  const outputs = [];
  let value = { maps: 1, side: network.side, values: Float32Array.from(pixels) };
  for (const layer of network.layers) {
    value = COMPUTE[layer.kind](value, layer);
    outputs.push(value);
  }
  return { outputs, probabilities: Array.from(COMPUTE.softmax(value).values) };
}

/**
 * Grey levels from ink (0 to 1, width x width): the drawing's longer side is scaled to a box, and its centre of mass
 * (or its middle) is put into the middle of the image. null without ink.
 */
function centred(ink, width) {
  let [left, right, top, bottom, mass, massX, massY] = [width, -1, width, -1, 0, 0, 0];
  ink.forEach((value, at) => {
    if (value < 0.02) return;
    const x = at % width, y = Math.floor(at / width);
    [left, right, top, bottom] = [Math.min(left, x), Math.max(right, x), Math.min(top, y), Math.max(bottom, y)];
    [mass, massX, massY] = [mass + value, massX + value * (x + 0.5), massY + value * (y + 0.5)];
  });
  if (right < 0) return null;
  const { side, box, by_mass: byMass, inverted } = network;
  const scale = (box * side) / Math.max(right - left + 1, bottom - top + 1);
  const middle = byMass ? [massX / mass, massY / mass] : [(left + right + 1) / 2, (top + bottom + 1) / 2];
  const levels = new Float32Array(side * side);
  const parts = Math.max(1, Math.ceil(2 * scale)); // of a drawn pixel, each of which falls into one pixel of the image
  for (let y = top * parts; y < (bottom + 1) * parts; y++) {
    const row = Math.floor(((y + 0.5) / parts - middle[1]) * scale + side / 2);
    if (row < 0 || row >= side) continue;
    for (let x = left * parts; x < (right + 1) * parts; x++) {
      const column = Math.floor(((x + 0.5) / parts - middle[0]) * scale + side / 2);
      if (column < 0 || column >= side) continue;
      levels[row * side + column] += ink[Math.floor(y / parts) * width + Math.floor(x / parts)] * (scale / parts) ** 2;
    }
  }
  return Array.from(levels, (level) => Math.round(255 * Math.min(1, level))).map((level) => (inverted ? 255 - level : level));
}

// What is shown

const pad = document.getElementById("pad");
const pen = pad.getContext("2d", { willReadFrequently: true });
const WIDTH = pad.width;

/** Puts maps side by side into a canvas, a pixel each; black is the least value of all of them, white the largest. */
function paint(canvas, columns, side, values, least, largest) {
  const context = canvas.getContext("2d"), picture = context.createImageData(canvas.width, canvas.height);
  values.forEach((value, at) => {
    const map = Math.floor(at / side ** 2), y = Math.floor(at / side) % side, x = at % side;
    const place = (Math.floor(map / columns) * side + y) * canvas.width + (map % columns) * side + x;
    const level = largest > least ? (255 * (value - least)) / (largest - least) : 0;
    picture.data.set([level, level, level, 255], 4 * place);
  });
  context.putImageData(picture, 0, 0);
}

function make(name, attributes, parent) {
  const element = Object.assign(document.createElement(name), attributes);
  parent.append(element);
  return element;
}

/** A heading and canvases for a layer: one for each map, or a single one for a vector. */
function stage(layer, output) {
  const section = make("section", { className: "stage" }, document.getElementById("stages"));
  const single = output.side === 1;
  const size = single ? `${output.maps} units` : `${output.maps} maps of ${output.side}x${output.side}`;
  make("h3", { textContent: layer.title }, section);
  make("p", { className: "note", textContent: `${layer.what}: ${size}` }, section);
  const row = make("div", { className: single ? "units" : "maps" }, section);
  let columns = 1;
  if (single) {
    for (let count = Math.min(30, output.maps); count > columns && columns === 1; count--) columns = output.maps % count ? 1 : count;
  }
  const count = single ? 1 : output.maps;
  const canvases = Array.from({ length: count }, (_, map) => {
    const canvas = make("canvas", { width: single ? columns : output.side, height: single ? output.maps / columns : output.side }, row);
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", single ? `${layer.title}, all units` : `${layer.title}, map ${map + 1}`);
    return canvas;
  });
  return (values) => {
    const least = Math.min(...values), largest = Math.max(...values), length = values.length / count;
    canvases.forEach((canvas, map) =>
      paint(canvas, columns, output.side, values.slice(map * length, (map + 1) * length), least, largest));
  };
}

const seen = document.getElementById("seen");
seen.width = seen.height = network.side;
const blank = classify(new Array(network.side ** 2).fill(network.inverted ? 255 : 0));
const stages = network.layers.map((layer, at) => (layer.title && at < network.layers.length - 1 ? stage(layer, blank.outputs[at]) : null));
const bars = network.classes.map((name) => {
  const row = make("li", {}, document.getElementById("bars"));
  make("span", { className: "name", textContent: name }, row);
  return [row, make("progress", { max: 1, value: 0, ariaLabel: name }, row), make("span", { className: "share" }, row)];
});

/** Computes and shows what is drawn. */
function update() {
  const ink = new Float32Array(WIDTH ** 2);
  const drawn = pen.getImageData(0, 0, WIDTH, WIDTH).data;
  for (let at = 0; at < ink.length; at++) ink[at] = drawn[4 * at] / 255;
  const pixels = centred(ink, WIDTH);
  const { outputs, probabilities } = pixels ? classify(pixels) : blank;
  paint(seen, 1, network.side, pixels ?? new Array(network.side ** 2).fill(0), 0, 255);
  stages.forEach((show, at) => show?.(pixels ? outputs[at].values : outputs[at].values.map(() => 0)));
  const best = pixels ? probabilities.indexOf(Math.max(...probabilities)) : -1;
  bars.forEach(([row, bar, share], at) => {
    row.classList.toggle("best", at === best);
    bar.value = pixels ? probabilities[at] : 0;
    share.textContent = pixels ? `${(100 * probabilities[at]).toFixed(1)} %` : "";
  });
  document.getElementById("answer").textContent = pixels ? network.classes[best] : "?";
}

// Drawing

Object.assign(pen, { lineWidth: 20, lineCap: "round", lineJoin: "round", strokeStyle: "#fff", fillStyle: "#000" });
let pending = false;

function later() {
  if (pending) return;
  pending = true;
  requestAnimationFrame(() => {
    pending = false;
    update();
  });
}

function clear() {
  pen.fillRect(0, 0, WIDTH, WIDTH);
  untouched = false;
  later();
}

function line(points) {
  pen.beginPath();
  pen.moveTo(...points[0]);
  points.slice(points.length > 1 ? 1 : 0).forEach((point) => pen.lineTo(...point));
  pen.stroke();
  later();
}

function place(event) {
  const frame = pad.getBoundingClientRect();
  return [((event.clientX - frame.left) * WIDTH) / frame.width, ((event.clientY - frame.top) * WIDTH) / frame.height];
}

let last = null;
let untouched = true; // the example is still there; the first stroke replaces it

pad.addEventListener("pointerdown", (event) => {
  if (untouched) clear();
  pad.setPointerCapture(event.pointerId);
  last = place(event);
  line([last]);
});
pad.addEventListener("pointermove", (event) => {
  if (last === null) return;
  const moves = event.getCoalescedEvents?.() ?? [];
  const points = (moves.length ? moves : [event]).map(place);
  line([last, ...points]);
  last = points.at(-1);
});
for (const end of ["pointerup", "pointercancel"]) pad.addEventListener(end, () => { last = null; });
document.getElementById("clear").addEventListener("click", clear);

const EXAMPLE = [[80, 70], [110, 48], [150, 45], [180, 65], [180, 95], [150, 120], [115, 130], [155, 138], [188, 165], [185, 205],
  [150, 235], [105, 232], [75, 210]]; // a 3

pen.fillRect(0, 0, WIDTH, WIDTH);
line(EXAMPLE);
globalThis.alexnetLab = { classify, centred, update };

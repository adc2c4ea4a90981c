// Elements, texts and numbers. Whatever comes from records becomes text nodes, never markup.

// What scrolls must be reached by the keyboard.
const REGION = { role: "region", tabindex: "0" };

function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined),
  );
  return element;
}

// **bold** and `code`, which is all that reports use within a line.
function rich(text) {
  return text.split(/(\*\*[^*]+\*\*|`[^`]+`)/).map((part) => {
    if (part.length > 4 && part.startsWith("**") && part.endsWith("**")) {
      return h("strong", {}, part.slice(2, -2));
    }
    if (part.length > 2 && part.startsWith("`") && part.endsWith("`")) {
      return h("code", {}, part.slice(1, -1));
    }
    return part;
  });
}

const plain = (text) => text.replace(/\*\*([^*]+)\*\*/g, "$1").replace(/`([^`]+)`/g, "$1");

// A tie goes to the even number, as Python has it.
const whole = (value) =>
  Math.abs(value % 1) === 0.5 ? 2 * Math.round(value / 2) : Math.round(value);

// As dabench.base.units writes them.
function significant(value, digits = 3) {
  if (value === null || Number.isNaN(value)) return "-";
  if (value === 0) return "0";
  const rounded = Number(value.toPrecision(digits));
  const power = Math.floor(Math.log10(Math.abs(rounded)));
  const short = (text) => (text.includes(".") ? text.replace(/\.?0+$/, "") : text);
  if (power < -4) {
    const [figures, exponent] = value.toExponential(digits - 1).split("e-");
    return `${short(figures)}e-${exponent.padStart(2, "0")}`;
  }
  if (power >= digits) return String(whole(value));
  return short(rounded.toFixed(Math.max(0, digits - 1 - power)));
}

const TIMES = [
  [1, "s"],
  [1e-3, "ms"],
  [1e-6, "µs"],
  [1e-9, "ns"],
];

function unitOf(seconds) {
  const rounded = Number(seconds.toPrecision(3));
  return TIMES.find(([scale]) => rounded >= scale) ?? TIMES[3];
}

function formatSeconds(value) {
  if (value === null || value === undefined) return "-";
  const [scale, unit] = unitOf(value);
  return `${significant(value / scale)} ${unit}`;
}

function formatInterval(low, high) {
  if (low === null || high === null || low === undefined) return "-";
  const [scale, unit] = unitOf(high);
  return `${significant(low / scale)} to ${significant(high / scale)} ${unit}`;
}

function formatBytes(value) {
  if (value === null || value === undefined) return "-";
  let size = value;
  for (const unit of ["B", "KiB", "MiB"]) {
    if (Number(size.toPrecision(4)) < 1024) return `${significant(size)} ${unit}`;
    size /= 1024;
  }
  return `${significant(size)} GiB`;
}

const launchesOf = (count) => `${count} launch${count === 1 ? "" : "es"}`;

function medianOf(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length / 2;
  return Number.isInteger(half) ? (sorted[half - 1] + sorted[half]) / 2 : sorted[Math.floor(half)];
}

// One message at a time for those who listen, too.
function say(text) {
  const status = document.getElementById("status");
  status.textContent = text;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => {
    status.textContent = "";
  }, 2500);
}

async function copy(text, what) {
  let copied = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // A page from disk, or served without encryption, may not use it everywhere.
    const field = h("textarea", { "aria-hidden": "true" });
    field.value = text;
    // What is behind an open dialog cannot be selected.
    (document.querySelector("dialog[open]") ?? document.body).append(field);
    field.select();
    copied = document.execCommand("copy");
    field.remove();
  }
  window.dabenchCopied = text;
  say(copied ? `${what} copied` : `This browser does not let the page copy ${what}`);
}

// What embedded data decompresses to.
async function unpacked(id) {
  const text = document.getElementById(id).textContent.trim();
  const bytes = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
  return inflated(new Blob([bytes]));
}

async function inflated(blob) {
  const stream = blob.stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

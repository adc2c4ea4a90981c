// Charts by Vega-Embed, drawn when they come near; every one has a text that says what it shows.

const drawn = new Set();
const starts = new WeakMap();

// Read once for each theme: to ask for a style makes the browser lay out the page at once.
const inks = new Map();

function inkOf(name) {
  const key = `${document.documentElement.dataset.theme} ${name}`;
  if (!inks.has(key)) {
    const style = getComputedStyle(document.documentElement);
    inks.set(key, style.getPropertyValue(name).trim());
  }
  return inks.get(key);
}

function theme() {
  const [ink, line] = [inkOf("--ink"), inkOf("--line")];
  return {
    background: "transparent",
    font: "system-ui, sans-serif",
    axis: { labelColor: ink, titleColor: ink, gridColor: line, domainColor: line, tickColor: line },
    legend: { labelColor: ink, titleColor: ink },
    header: { labelColor: ink, titleColor: ink },
    title: { color: ink },
    rule: { color: ink },
    text: { color: ink },
    view: { stroke: line },
  };
}

// Lines that a specification draws in black are of the theme's ink.
function inked(node, ink) {
  if (Array.isArray(node)) return node.map((each) => inked(each, ink));
  if (node && typeof node === "object") {
    return Object.fromEntries(
      Object.entries(node).map(([key, value]) => [
        key,
        key === "color" && value === "black" ? ink : inked(value, ink),
      ]),
    );
  }
  return node;
}

// The same colour for the same thing whatever is filtered, and labels that leave room for a plot.
function fitted(node, domains, width) {
  if (Array.isArray(node)) return node.map((each) => fitted(each, domains, width));
  if (!node || typeof node !== "object") return node;
  const made = Object.fromEntries(
    Object.entries(node).map(([key, value]) => [key, fitted(value, domains, width)]),
  );
  if (made.labelLimit > 300 && width)
    made.labelLimit = Math.min(made.labelLimit, Math.round(0.45 * width));
  if (made.scale?.range && domains[made.field])
    made.scale = { ...made.scale, domain: domains[made.field] };
  return made;
}

// A figure; `rows` are put in under that name if given, `onpick` hears of a datum that is clicked.
function chart(
  spec,
  caption,
  { rows = null, onpick = null, least = 180, eager = false, step = null, domains = {} } = {},
) {
  const place = h("div", {});
  const holder = h(
    "div",
    {
      class: "chart",
      ...REGION,
      "aria-label": `Chart: ${plain(caption)}`,
      style: `min-height: ${least}px`,
    },
    place,
  );
  const figure = h("figure", {}, holder, h("figcaption", {}, rich(caption)));
  const self = { figure, rows, view: null, draw: null, update: null };
  // So many pixels for each value of a field.
  const stepped = () => step.pixels * new Set(self.rows.map((row) => row[step.field])).size;
  // Before it is drawn it has its place: nothing below moves under somebody's hand.
  const reserve = () => {
    if (step) holder.style.minHeight = `${stepped() + step.around}px`;
  };
  // One after the other: of several that wait only the last is drawn.
  let wanted = 0;
  let queue = Promise.resolve();
  self.draw = () => {
    wanted += 1;
    const mine = wanted;
    queue = queue.catch(() => {}).then(() => (mine === wanted ? drawNow() : null));
    return queue;
  };
  const drawNow = async () => {
    self.view?.finalize();
    self.view = null;
    if (self.rows && !self.rows.length) {
      place.replaceChildren(
        h(
          "p",
          { class: "soft" },
          "Nothing to draw: no row that the filters let through has what this chart shows.",
        ),
      );
      holder.dataset.drawn = "yes";
      return;
    }
    const ink = inkOf("--ink");
    const whole = {
      ...fitted(inked(spec, ink), domains, holder.clientWidth),
      description: plain(caption),
    };
    if (self.rows) whole.datasets = { ...whole.datasets, rows: self.rows };
    if (step) whole.height = stepped();
    const made = await vegaEmbed(place, whole, {
      actions: false,
      ast: true,
      logLevel: 1,
      renderer: "svg",
      config: theme(),
      tooltip: { theme: document.documentElement.dataset.theme },
    });
    if (!drawn.has(self)) {
      made.view.finalize();
      return;
    }
    self.view = made.view;
    if (onpick) made.view.addEventListener("click", (_, item) => item?.datum && onpick(item.datum));
    // A layer without marks is nothing to be read out.
    for (const group of place.querySelectorAll("g[role]:empty")) {
      group.removeAttribute("role");
      group.removeAttribute("aria-roledescription");
    }
    holder.dataset.drawn = "yes";
  };
  self.update = (rows) => {
    self.rows = rows;
    reserve();
    if (drawn.has(self)) return self.draw();
    return Promise.resolve();
  };
  const start = () => {
    if (drawn.has(self)) return Promise.resolve();
    drawn.add(self);
    return self.draw();
  };
  self.start = start;
  starts.set(holder, start);
  if (!eager) {
    new IntersectionObserver(
      (entries, observer) => {
        if (entries.some((entry) => entry.isIntersecting)) {
          observer.disconnect();
          start();
        }
      },
      { rootMargin: "600px" },
    ).observe(holder);
  }
  return self;
}

function redrawCharts() {
  return Promise.allSettled(
    [...drawn].filter((each) => each.figure.isConnected).map((each) => each.draw()),
  );
}

// What is taken off the page listens to nothing any more.
function finish(element) {
  for (const each of drawn) {
    if (element.contains(each.figure)) {
      each.view?.finalize();
      drawn.delete(each);
    }
  }
}

// Tables: sorted by their headings, searched, and copied as they are shown.

const FORMATS = { Markdown: asMarkdown, CSV: asCsv, LaTeX: asLatex };

function asMarkdown(columns, rows) {
  const cell = (text) => text.replaceAll("|", "\\|").replaceAll("\n", " ");
  const line = (cells) => `| ${cells.join(" | ")} |`;
  const rule = columns.map((column) => (column.number ? "--:" : ":--"));
  return [
    line(columns.map((c) => cell(c.label))),
    line(rule),
    ...rows.map((r) => line(r.map(cell))),
  ].join("\n");
}

function asCsv(columns, rows) {
  const cell = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  return [columns.map((c) => c.label), ...rows].map((row) => row.map(cell).join(",")).join("\n");
}

const LATEX = {
  "&": "\\&",
  "%": "\\%",
  $: "\\$",
  "#": "\\#",
  _: "\\_",
  "{": "\\{",
  "}": "\\}",
  "~": "\\textasciitilde{}",
  "^": "\\textasciicircum{}",
  "\\": "\\textbackslash{}",
  µ: "$\\mu$",
  "±": "$\\pm$",
};

function asLatex(columns, rows) {
  const cell = (text) => plain(text).replace(/[&%$#_{}~^\\µ±]/g, (sign) => LATEX[sign]);
  const line = (cells) => `${cells.map(cell).join(" & ")} \\\\`;
  return [
    `\\begin{tabular}{${columns.map((c) => (c.number ? "r" : "l")).join("")}}`,
    "\\toprule",
    line(columns.map((c) => c.label)),
    "\\midrule",
    ...rows.map(line),
    "\\bottomrule",
    "\\end{tabular}",
  ].join("\n");
}

function copyButtons(shown) {
  return Object.entries(FORMATS).map(([name, write]) => {
    const take = () => {
      const [columns, rows] = shown();
      copy(write(columns, rows), `${rows.length} rows as ${name}`);
    };
    return h("button", { type: "button", onclick: take }, `Copy ${name}`);
  });
}

// Numbers by size, whatever unit stands behind them; words by the alphabet.
const SCALES = {
  ns: 1e-9,
  µs: 1e-6,
  ms: 1e-3,
  s: 1,
  B: 1,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
};

function sortKey(text) {
  const interval = /^([\d.e+-]+) to [\d.e+-]+ (ns|µs|ms|s)\b/.exec(text);
  if (interval) return Number(interval[1]) * SCALES[interval[2]];
  if (/^\d{4}-\d\d-\d\d/.test(text)) return text;
  if (/^\d+(x\d+)+$/.test(text))
    return text.split("x").reduce((area, side) => area * Number(side), 1);
  const found = /^[+-]?[\d,]*\.?\d+(?:e[+-]?\d+)?/i.exec(text);
  if (!found) return text === "-" || text === "" ? null : text.toLowerCase();
  const unit = /^\s*([a-zµA-Z]+)/.exec(text.slice(found[0].length))?.[1];
  return Number(found[0].replaceAll(",", "")) * (SCALES[unit] ?? 1);
}

// What says nothing stands last, in either order.
function compareKeys(a, b, sign) {
  const [emptyA, emptyB] = [a, b].map((key) => key === null || key === undefined);
  if (emptyA || emptyB) return emptyA - emptyB;
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return sign * (typeof a === "number" ? a - b : a.localeCompare(b));
}

function heading(column, sorted, onsort) {
  const order = sorted ? (sorted > 0 ? "ascending" : "descending") : null;
  const sign = { ascending: " ▲", descending: " ▼" }[order] ?? "";
  return h(
    "th",
    { scope: "col", class: column.number ? "number" : null, "aria-sort": order },
    h(
      "button",
      { type: "button", onclick: onsort },
      column.label || "(fact)",
      h("span", { "aria-hidden": "true" }, sign),
    ),
  );
}

const ROWS_AT_ONCE = 200;
// How each table is looked at, which a renewal of the page leaves as it is.
const views = new Map();

// A table of a report: its cells are text.
function reportTable(block, title, place) {
  const columns = block.columns.map((label, n) => ({ label, number: !block.words[n] }));
  const kept = `${title} ${place}`;
  const view = views.get(kept) ?? { column: -1, sign: 1, search: "", limit: ROWS_AT_ONCE };
  views.set(kept, view);
  const body = h("tbody");
  const head = h("tr");
  const more = h("button", {
    type: "button",
    onclick: () => {
      view.limit += ROWS_AT_ONCE;
      draw();
    },
  });
  const known = () => {
    const words = view.search.toLowerCase();
    const kept = block.rows
      .map((cells, number) => ({ cells, number }))
      .filter(({ cells }) => !words || cells.join(" ").toLowerCase().includes(words));
    if (view.column >= 0) {
      const keys = new Map(kept.map((row) => [row, sortKey(row.cells[view.column])]));
      kept.sort((a, b) => compareKeys(keys.get(a), keys.get(b), view.sign));
    }
    return kept;
  };
  const draw = () => {
    head.replaceChildren(
      ...columns.map((column, n) =>
        heading(column, view.column === n ? view.sign : 0, () => {
          view.sign = view.column === n ? -view.sign : 1;
          view.column = n;
          draw();
          head.children[n].querySelector("button").focus();
        }),
      ),
    );
    const kept = known();
    more.hidden = kept.length <= view.limit;
    more.textContent = `Show ${Math.min(kept.length - view.limit, ROWS_AT_ONCE)} more of ${kept.length - view.limit}`;
    body.replaceChildren(
      ...kept.slice(0, view.limit).map(({ cells, number }) =>
        h(
          "tr",
          { "data-row": number + 1 },
          cells.map((cell, n) =>
            h(
              "td",
              { class: columns[n].number ? "number" : "words" },
              badge(columns[n].label, cell) ?? rich(cell),
            ),
          ),
        ),
      ),
    );
  };
  draw();
  const search =
    block.rows.length > 8
      ? h("input", {
          type: "search",
          placeholder: "Search this table",
          value: view.search,
          "aria-label": `Search table ${place} of ${title}`,
          oninput: (event) => {
            view.search = event.target.value;
            draw();
          },
        })
      : null;
  return h(
    "div",
    { class: "table" },
    h(
      "div",
      { class: "bar" },
      search,
      copyButtons(() => [
        columns,
        known()
          .slice(0, view.limit)
          .map((row) => row.cells),
      ]),
    ),
    h(
      "div",
      {
        class: "scroll",
        tabindex: "0",
        role: "region",
        "aria-label": `Table ${place} of ${title}`,
      },
      h("table", {}, h("thead", {}, head), body),
    ),
    more,
    h("div", { class: "soft" }, rich(block.caption), " ", sources(block.runs)),
  );
}

// To the runs whose records a table was made from.
function sources(runs) {
  const link = (run, label) =>
    h("button", { type: "button", class: "link", onclick: () => showRun(run) }, label);
  if (runs.length === 1) return link(runs[0], "Where these numbers come from");
  return h(
    "details",
    { class: "sources" },
    h("summary", {}, `Where these numbers come from: ${runs.length} runs`),
    h(
      "ul",
      {},
      runs.map((run) => h("li", {}, link(run, run))),
    ),
  );
}

const VERDICTS = ["faster", "slower", "same", "undecided", "better", "worse"];

function badge(label, cell) {
  if (label !== "verdict") return null;
  const word = VERDICTS.find((each) => cell === each || cell.endsWith(` ${each}`));
  return word ? h("span", { class: `badge ${word}` }, cell) : null;
}

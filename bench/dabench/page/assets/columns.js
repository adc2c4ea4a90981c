// The columns of the table of all measurements, and the axes that filter it.

const AXES = [
  ["machine", "machine"],
  ["run_id", "run"],
  ["family", "family"],
  ["model", "model"],
  ["device", "device"],
  ["batch", "batch"],
  ["size", "size"],
  ["mode", "mode"],
  ["phase", "phase"],
  ["dtype", "dtype"],
  ["layout", "layout"],
  ["way", "way"],
  ["input", "input"],
  ["threads", "threads"],
  ["protocol", "protocol"],
  ["rate", "frames/s"],
  ["concurrency", "processes"],
  ["rank", "standing"],
  ["status", "status"],
];
const ALWAYS = ["model", "batch", "size", "mode", "phase", "dtype", "layout"];
// Numbers that do not say by themselves what they are.
const NAMED = {
  batch: "batch ",
  threads: "threads ",
  rate: "frames/s ",
  concurrency: "processes ",
};
// In the order in which they tell rows apart; the end of a long label is cut off.
const APART = [
  "dtype",
  "layout",
  "way",
  "batch",
  "mode",
  "phase",
  "threads",
  "protocol",
  "rate",
  "concurrency",
  "input",
  "size",
  "device",
  "machine",
  "family",
  "run_id",
];
// Columns that have a place of their own.
const OWN = ["model", "rank", "status", "machine", "run_id"];
const MOST_DOTS = 25;
const MOST_CHIPS = 12;

function shownInterval(rows, row) {
  const scope = rows.get(row, "scope");
  const text = formatInterval(rows.get(row, "ci_low_s"), rows.get(row, "ci_high_s"));
  return scope ? `${text} (${scope})` : text;
}

// Column: its label, its text in a row, what it sorts by, and an element where text is not enough.
function explorerColumns(rows) {
  const word = (name, label) => ({
    key: name,
    label,
    text: (row) => rows.shown(name, String(rows.get(row, name) ?? "")),
    sort: (row) => rows.get(row, name),
  });
  const varies = ([name]) =>
    !OWN.includes(name) && (ALWAYS.includes(name) || rows.words(name).length > 1);
  const seconds = (name, label) => ({
    key: name,
    label,
    number: true,
    text: (row) => formatSeconds(rows.get(row, name)),
    sort: (row) => rows.get(row, name),
  });
  const number = (name, label, text) =>
    rows.columns[name]
      ? [
          {
            key: name,
            label,
            number: true,
            text: (row) => text(rows.get(row, name)),
            sort: (row) => rows.get(row, name),
          },
        ]
      : [];
  const some = (text) => (value) => (value === null ? "-" : text(value));
  return [
    word("model", "model"),
    seconds("median_s", "median"),
    {
      key: "interval",
      label: "95% interval",
      number: true,
      text: (row) => shownInterval(rows, row),
      sort: (row) => rows.get(row, "ci_low_s"),
    },
    {
      key: "verdict",
      label: "standing",
      text: (row) => verdictOf(rows, row),
      sort: (row) => verdictOf(rows, row),
      element: (row) => {
        const failed = rows.get(row, "status") !== "ok";
        const [head, ...rest] = verdictOf(rows, row).split(": ");
        if (!head) return null;
        return [
          h("span", { class: `badge ${failed ? "failed" : head}` }, head),
          rest.length ? ` ${rest.join(": ")}` : "",
        ];
      },
    },
    ...AXES.filter(varies).map(([name, label]) => word(name, label)),
    ...number("device_median_s", "by the device's clock", formatSeconds),
    ...number("images_per_s", "images/s", some(significant)),
    ...number(
      "flops_per_s",
      "GFLOP/s",
      some((value) => (value / 1e9).toFixed(0)),
    ),
    ...number("peak_bytes", "peak memory", formatBytes),
    ...(rows.words("passes").length > 1 ? number("passes", "passes a sample", String) : []),
    ...number("joules_per_image", "J/image", some(significant)),
    ...number(
      "on_time",
      "on time",
      some((value) => `${(100 * value).toFixed(1)}%`),
    ),
    {
      key: "n",
      label: "n / launches",
      number: true,
      text: (row) => `${rows.get(row, "n")} / ${rows.get(row, "launches")}`,
      sort: (row) => rows.get(row, "n"),
    },
    ...(rows.words("flags").length ? [word("flags", "flags")] : []),
    ...["machine", "run_id"]
      .filter((name) => rows.words(name).length > 1)
      .map((name) => word(name, name === "run_id" ? "run" : name)),
  ];
}

function verdictOf(rows, row) {
  const status = rows.get(row, "status");
  if (status !== "ok") return `${status}: ${rows.get(row, "reason") || "no reason given"}`;
  const rank = rows.get(row, "rank");
  return rank ? `${rank}: ${rows.get(row, "standing")}` : "";
}

// One case: every sample, its launches over time, what its flags mean, and the line that repeats it.

const FACTS = [
  ["machine", "machine"],
  ["run_id", "run"],
  ["case_id", "case"],
  ["phase", "phase"],
  ["protocol", "protocol"],
  ["status", "status"],
  ["reason", "reason"],
  ["flags", "flags"],
  ["stop", "launches ended by"],
  ["loss", "loss"],
  ["energy", "energy"],
];
// What only some cases have.
const EXTRA = [
  ["compile_s", "compiling", formatSeconds],
  ["difference", "output's distance from the plain network's", (value) => value.toExponential(1)],
  ["alone_s", "a pass by itself", formatSeconds],
  ["on_time", "frames done in time", (value) => `${(100 * value).toFixed(1)}%`],
  ["overruns", "passes longer than the period", String],
  ["queue", "frames not done at the end", String],
  [
    "system_share",
    "processor time of the operating system",
    (value) => `${(100 * value).toFixed(0)}%`,
  ],
];
const KINDS = {
  warmup: "warm-up",
  sample: "sample",
  done: "until the work was done",
  alone: "alone",
};

function caseDialog(rows, shown, samplesOf) {
  const inner = h("div", {});
  const close = () => dialog.close();
  const dialog = h(
    "dialog",
    { "aria-labelledby": "case-title" },
    h(
      "div",
      { class: "bar" },
      h("button", { type: "button", onclick: close }, "Close"),
      h("button", { type: "button", onclick: () => copy(location.href, "Link") }, "Copy link"),
    ),
    inner,
  );
  dialog.addEventListener("close", () => {
    state.open = "";
    keepAddress();
    finish(inner);
    inner.replaceChildren();
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) close();
  });

  async function open(name) {
    const row = rows.byName.get(name);
    if (row === undefined) {
      say("This page has no such case");
      return;
    }
    let launches = [];
    try {
      launches = (await samplesOf())[name] ?? [];
    } catch {
      say("The samples cannot be read");
    }
    const low = rows.get(row, "ci_low_s");
    const high = rows.get(row, "ci_high_s");
    const facts = FACTS.map(([key, label]) => [label, rows.get(row, key)]).filter(
      ([, value]) => value,
    );
    const measured =
      rows.get(row, "median_s") === null
        ? []
        : [
            [
              "median",
              `${formatSeconds(rows.get(row, "median_s"))}, 95% interval ${shownInterval(rows, row)}`,
            ],
            ...(rows.get(row, "device_median_s") === null
              ? []
              : [["by the device's clock", formatSeconds(rows.get(row, "device_median_s"))]]),
            [
              "5th to 95th percentile",
              formatInterval(rows.get(row, "p05_s"), rows.get(row, "p95_s")),
            ],
            [
              "shortest, longest",
              `${formatSeconds(rows.get(row, "min_s"))}, ${formatSeconds(rows.get(row, "max_s"))}`,
            ],
            [
              "mean, deviation",
              `${formatSeconds(rows.get(row, "mean_s"))}, ${formatSeconds(rows.get(row, "std_s"))}`,
            ],
            [
              "samples",
              `${rows.get(row, "n")} in ${launchesOf(rows.get(row, "launches"))}, after ${rows.get(row, "warmup_n") ?? 0} passes of warm-up`,
            ],
            ["passes a sample", rows.get(row, "passes")],
            ...(rows.get(row, "rank")
              ? [["standing", `${rows.get(row, "rank")}: ${rows.get(row, "standing")}`]]
              : []),
            ...temperature(launches),
            ["peak memory", formatBytes(rows.get(row, "peak_bytes"))],
            [
              "multiply-adds of a pass",
              rows.get(row, "macs")?.toLocaleString("en") ?? "not counted",
            ],
            ...EXTRA.filter(([key]) => rows.get(row, key) !== null).map(([key, label, text]) => [
              label,
              text(rows.get(row, key)),
            ]),
          ];
    if (!dialog.isConnected || state.open !== name) return;
    finish(inner);
    inner.charts = [];
    inner.replaceChildren(
      h("h2", { id: "case-title" }, `${rows.get(row, "model")}, ${rows.get(row, "phase")}`),
      h(
        "dl",
        { class: "facts" },
        [...measured, ...facts].map(([label, value]) => [h("dt", {}, label), h("dd", {}, value)]),
      ),
      ...pictures(launches, low, high),
      ...notBegun(row),
      ...command(row),
      provenanceLink(row),
    );
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    for (const each of inner.charts) each.start();
  }

  function pictures(launches, low, high) {
    if (!launches.length) return [];
    const strips = launches.flatMap((launch) =>
      Object.entries(KINDS).flatMap(([kind, label]) =>
        (launch[kind] ?? []).map((value, index) => ({
          launch: String(launch.launch),
          kind: label,
          index,
          value: 1e3 * value * launch.unit_s,
          low: 1e3 * low,
          high: 1e3 * high,
        })),
      ),
    );
    const points = launches
      .filter((launch) => launch.started_at && launch.sample?.length)
      .map((launch) => ({
        at: launch.started_at,
        launch: String(launch.launch),
        median: 1e3 * medianOf(launch.sample) * launch.unit_s,
        load: launch.other_cores ?? null,
        heat: launch.celsius === undefined ? "not told" : `${launch.celsius} °C`,
        throttled: launch.throttled === undefined ? "not known" : String(launch.throttled),
        ended: launch.stop ?? "",
      }));
    const every = shown.step > 1 ? `Every ${shown.step}th sample` : "Every sample";
    const made = [
      chart(
        shown.charts.samples,
        `${every}, a strip per launch; warm-up in grey, the 95% interval of the median as a band${launches.length > 1 ? "" : " (within one launch: it says nothing of the next)"}`,
        { rows: strips, eager: true, step: { field: "launch", pixels: 26, around: 90 } },
      ),
    ];
    if (points.length > 1)
      made.push(
        chart(
          shown.charts.launches,
          "The launches in the order they ran: their medians, and the cores that other programs used meanwhile",
          { rows: points, eager: true },
        ),
      );
    inner.charts = made;
    return made.map((each) => each.figure);
  }

  function temperature(launches) {
    const told = launches.map((each) => each.celsius).filter((each) => each !== undefined);
    if (!told.length) return [];
    const [low, high] = [Math.min(...told), Math.max(...told)];
    return [["device's temperature", low === high ? `${low} °C` : `${low} to ${high} °C`]];
  }

  function notBegun(row) {
    const failed = shown.failed.filter(
      (each) =>
        each.run_id === rows.get(row, "run_id") && each.case_id === rows.get(row, "case_id"),
    );
    if (!failed.length) return [];
    return [
      h("h3", {}, "Launches without a number"),
      h(
        "ul",
        { class: "prose" },
        failed.map((each) => h("li", {}, `Launch ${each.launch}: ${each.status}: ${each.reason}`)),
      ),
    ];
  }

  function command(row) {
    const line = rows.get(row, "command");
    if (!line) return [];
    return [
      h("h3", {}, "To repeat it"),
      h("pre", { class: "command", tabindex: "0" }, line),
      h("button", { type: "button", onclick: () => copy(line, "Command") }, "Copy command"),
    ];
  }

  function provenanceLink(row) {
    const run = rows.get(row, "run_id");
    return h(
      "p",
      {},
      h(
        "button",
        {
          type: "button",
          class: "link",
          onclick: () => {
            close();
            showRun(run);
          },
        },
        `Where ${run} comes from: machine, software, protocol`,
      ),
    );
  }

  // What an address names is shown as it is; what is picked is a step that Back undoes.
  return {
    dialog,
    show: open,
    open: (name) => {
      state.open = name;
      keepAddress(true);
      return open(name);
    },
    close,
  };
}

function showRun(run) {
  const found = [...document.querySelectorAll("details[data-run]")].find(
    (each) => each.dataset.run === run,
  );
  if (!found) return;
  found.open = true;
  found.scrollIntoView({ block: "center" });
  found.querySelector("summary").focus();
}

function provenance(shown) {
  const words = (value) => {
    if (Array.isArray(value)) return value.map(words).join(", ");
    if (value && typeof value === "object")
      return Object.entries(value)
        .map(([key, each]) => `${key}=${words(each)}`)
        .join(", ");
    return String(value);
  };
  return h(
    "section",
    { id: "provenance" },
    h("h2", {}, "Where the numbers come from"),
    h(
      "p",
      { class: "soft" },
      "Of each run the machine, the software, the command and the rules that its numbers were made by. Published figures name their sources where they stand.",
    ),
    shown.runs.map((run) =>
      h(
        "details",
        { "data-run": run.run_id },
        h("summary", {}, `${run.run_id}: ${run.kind}, ${run.created}`),
        h("pre", { class: "command", tabindex: "0" }, run.command),
        h(
          "dl",
          { class: "facts" },
          Object.entries(run.environment).map(([key, value]) => [
            h("dt", {}, key.replaceAll("_", " ")),
            h("dd", {}, key === "memory_bytes" ? formatBytes(value) : words(value)),
          ]),
        ),
        Object.entries(run.rules).map(([topic, rule]) =>
          h("p", {}, h("strong", {}, `${topic}: `), rich(rule)),
        ),
        run.left_out.map((line) => h("p", {}, `Not measured: ${line}`)),
      ),
    ),
  );
}

// All measurements: filters by axis, a table that they change, and charts that follow it.

function explorer(rows, shown, openCase) {
  const columns = explorerColumns(rows);
  const axes = AXES.filter(([name]) => rows.words(name).length > 1);

  const body = h("table", { class: "explorer" });
  const count = h("p", { class: "soft", "aria-live": "polite" });
  const more = h(
    "button",
    {
      type: "button",
      onclick: () => {
        state.limit += STEP;
        draw();
      },
    },
    `Show ${STEP} more`,
  );
  const filters = h("div", { class: "filters" });
  const search = h("input", {
    id: "search",
    type: "search",
    placeholder: "Search all measurements",
    "aria-label": "Search all measurements",
    oninput: (event) => {
      state.search = event.target.value;
      state.limit = STEP;
      change();
    },
  });
  const group = h(
    "button",
    {
      type: "button",
      onclick: () => {
        state.grouped = !state.grouped;
        change();
      },
    },
    "Group by machine",
  );
  const clear = h(
    "button",
    {
      type: "button",
      onclick: () => {
        state.filters.clear();
        state.only.clear();
        state.search = "";
        change();
      },
    },
    "Clear filters",
  );
  const groups = [
    ...new Set(rows.all.map((row) => `${rows.get(row, "dtype")} ${rows.get(row, "layout")}`)),
  ].sort();
  const times = chart(
    shown.charts.times,
    "Median time of the measurements in the table, the first rows of it, with 95% intervals where there are several launches. Under the paper's protocol a sample is all its passes, by a clock that does not wait for the device",
    {
      rows: [],
      least: 320,
      domains: { group: groups },
      step: { field: "label", pixels: 20, around: 75 + 18 * Math.ceil(groups.length / 2) },
      onpick: (datum) => datum.key && openCase(datum.key),
    },
  );
  const dots = shown.tradeoff.length
    ? chart(
        shown.charts.tradeoff,
        "Speed against accuracy: a dot per network, way and machine, with intervals both ways; times and accuracies are joined only where the graph's hash is the same. The front of each machine is dashed. Hollow are printed figures, of their sources' machines, whose shape says how they came about, and ways that were left alone early; accuracies of different data are in rows of their own since they cannot be compared",
        {
          rows: [],
          least: 345 * new Set(shown.tradeoff.map((each) => each.data)).size + 60,
          onpick: (datum) => datum.key && openCase(datum.key),
        },
      )
    : null;

  // What a row must pass: all filters but one's, and the search.
  function tests(except = null) {
    const found = [...state.filters]
      .filter(([axis, values]) => values.size && axis !== except)
      .map(([axis, values]) => {
        const { words, codes } = rows.axis(axis);
        const allowed = words.map((word) => values.has(word));
        return (row) => codes[row] >= 0 && allowed[codes[row]];
      });
    if (state.only.size) found.push((row) => state.only.has(rows.mark(row)));
    const words = state.search.toLowerCase();
    if (words) found.push((row) => rows.text(row).includes(words));
    return found;
  }

  function passing(except = null) {
    const found = tests(except);
    return found.length ? rows.all.filter((row) => found.every((test) => test(row))) : rows.all;
  }

  function ordered(kept) {
    const column = columns.find((each) => each.key === state.sort);
    const machines = new Map(rows.words("machine").map((name, n) => [name, n]));
    const place = (row) => (state.grouped ? (machines.get(rows.get(row, "machine")) ?? -1) : 0);
    const sign = state.descending ? -1 : 1;
    if (!column && !state.grouped) return kept;
    return [...kept].sort(
      (a, b) =>
        place(a) - place(b) ||
        (column ? compareKeys(column.sort(a), column.sort(b), sign) : 0) ||
        a - b,
    );
  }

  function toggle(axis, value) {
    const values = state.filters.get(axis) ?? new Set();
    if (!values.delete(value)) values.add(value);
    state.filters.set(axis, values);
    state.limit = STEP;
    change();
  }

  function drawFilters() {
    const focused = document.activeElement?.dataset?.chip;
    filters.replaceChildren(
      ...(state.only.size ? [onlyChip()] : []),
      ...axes.map(([axis, label]) => {
        const { words, codes } = rows.axis(axis);
        const counted = new Int32Array(words.length);
        for (const row of passing(axis)) if (codes[row] >= 0) counted[codes[row]] += 1;
        const counts = new Map(words.map((word, n) => [word, counted[n]]).filter(([, n]) => n));
        const chosen = state.filters.get(axis) ?? new Set();
        const values = words.filter((value) => counts.has(value) || chosen.has(value));
        const first = values.filter((value, n) => n < MOST_CHIPS || chosen.has(value));
        const chip = (value) =>
          h(
            "button",
            {
              type: "button",
              class: "chip",
              "aria-pressed": String(chosen.has(value)),
              "data-chip": `${axis}:${value}`,
              onclick: () => toggle(axis, value),
            },
            rows.shown(axis, value),
            " ",
            h("small", {}, String(counts.get(value) ?? 0)),
          );
        const rest = values.length - first.length;
        return h(
          "div",
          { class: "filter", role: "group", "aria-label": `Filter by ${label}` },
          h("span", { class: "soft" }, label),
          h(
            "div",
            { class: "chips" },
            first.map(chip),
            rest > 0
              ? moreOf(
                  label,
                  rest,
                  () => values.filter((value) => !first.includes(value)),
                  (value) => toggle(axis, value),
                )
              : null,
          ),
        );
      }),
    );
    if (focused)
      [...filters.querySelectorAll("[data-chip]")]
        .find((each) => each.dataset.chip === focused)
        ?.focus();
  }

  // Rows that an answer led to are let go by one chip.
  function onlyChip() {
    const forget = () => {
      state.only.clear();
      change();
      search.focus();
    };
    return h(
      "div",
      { class: "filter", role: "group", "aria-label": "Filter by answer" },
      h("span", { class: "soft" }, "answer"),
      h(
        "div",
        { class: "chips" },
        h(
          "button",
          {
            type: "button",
            class: "chip",
            "aria-pressed": "true",
            "data-chip": "only",
            onclick: forget,
          },
          "the rows it rests on ",
          h("small", {}, String(state.only.size)),
        ),
      ),
    );
  }

  // Of thousands of values the rest: typed, from a list that is made when somebody asks for it.
  function moreOf(label, count_, values, pick) {
    const list = h("datalist", { id: `more-${label.replace(/\W/g, "-")}` });
    const fill = () => {
      if (!list.children.length) list.append(...values().map((value) => h("option", { value })));
    };
    const take = (event) => {
      if (values().includes(event.target.value)) pick(event.target.value);
      else if (event.target.value) say(`No ${label} ${event.target.value} among these`);
    };
    return [
      h("input", {
        "aria-label": `More of ${label}`,
        placeholder: `${count_} more`,
        list: list.id,
        size: "9",
        onfocus: fill,
        onchange: take,
      }),
      list,
    ];
  }

  function cells(row) {
    return columns.map((column) => {
      const text = column.text(row);
      const content =
        column.key === "model"
          ? h(
              "a",
              {
                href: address({ open: rows.names[row], section: "" }),
                onclick: (event) => {
                  event.preventDefault();
                  openCase(rows.names[row]);
                },
              },
              text,
            )
          : (column.element?.(row) ?? text);
      return h("td", { class: column.number ? "number" : "words" }, content);
    });
  }

  let current = [];
  function draw() {
    current = ordered(passing());
    const first = current.slice(0, state.limit);
    const bodies = [];
    let machine = null;
    for (const row of first) {
      const mine = rows.get(row, "machine") || "no machine: not begun";
      if (!bodies.length || (state.grouped && mine !== machine)) {
        bodies.push(h("tbody"));
        if (state.grouped)
          bodies
            .at(-1)
            .append(h("tr", {}, h("th", { scope: "rowgroup", colspan: columns.length }, mine)));
        machine = mine;
      }
      bodies.at(-1).append(h("tr", { "data-name": rows.names[row] }, cells(row)));
    }
    const head = h(
      "tr",
      {},
      columns.map((column) =>
        heading(column, state.sort === column.key ? (state.descending ? -1 : 1) : 0, () => {
          state.descending = state.sort === column.key && !state.descending;
          state.sort = column.key;
          change();
          body.querySelectorAll("thead button")[columns.indexOf(column)].focus();
        }),
      ),
    );
    body.replaceChildren(h("thead", {}, head), ...bodies);
    count.textContent = `${current.length} of ${rows.length} measurements${current.length > first.length ? `, ${first.length} shown` : ""}`;
    more.hidden = current.length <= first.length;
    group.setAttribute("aria-pressed", String(state.grouped));
    search.value = state.search;
    const dotted = first.filter((row) => rows.get(row, "median_s") !== null).slice(0, MOST_DOTS);
    const differs = (name) => new Set(dotted.map((row) => rows.get(row, name))).size > 1;
    const apart = APART.filter(differs);
    times.update(dotted.map((row) => dot(row, apart)));
    dots?.update(shown.tradeoff.filter(isKept));
  }

  function dot(row, apart) {
    // Of a single launch the interval says nothing of the next.
    const one = rows.get(row, "ci_low_s") === null || Boolean(rows.get(row, "scope"));
    const median = 1e3 * rows.get(row, "median_s");
    return {
      key: rows.names[row],
      label: [
        rows.shown("model", rows.get(row, "model")),
        ...apart
          .filter((name) => rows.get(row, name) !== null)
          .map((name) => (NAMED[name] ?? "") + rows.get(row, name)),
      ]
        .filter(Boolean)
        .join(", "),
      group: `${rows.get(row, "dtype")} ${rows.get(row, "layout")}`,
      value: median,
      low: one ? median : 1e3 * rows.get(row, "ci_low_s"),
      high: one ? median : 1e3 * rows.get(row, "ci_high_s"),
      shown: `${formatSeconds(rows.get(row, "median_s"))} (${shownInterval(rows, row)})`,
      what: [
        rows.get(row, "protocol"),
        launchesOf(rows.get(row, "launches")),
        rows.get(row, "flags"),
      ]
        .filter(Boolean)
        .join(", "),
      machine: rows.get(row, "machine"),
    };
  }

  // Dots follow the filters of what they share with the table; printed figures have no row in it.
  function isKept(each) {
    const row = rows.byName.get(each.key);
    if (row !== undefined) return tests().every((test) => test(row));
    // They stay for comparison, but where the search or a filter asks for networks by name or kind,
    // or for what their source says otherwise of.
    // A precision may say more: fp16 (cast).
    const lets = (axis, value) => {
      const wanted = [...(state.filters.get(axis) ?? [])];
      return (
        !wanted.length ||
        !value ||
        wanted.some((each) => each === value || each.startsWith(`${value} (`))
      );
    };
    return (
      !state.search &&
      !state.filters.get("model")?.size &&
      lets("family", "segmenter") &&
      lets("size", each.size) &&
      lets("dtype", each.dtype)
    );
  }

  // An address may name what this page does not have.
  function forgetUnknown() {
    for (const [axis, values] of state.filters) {
      const known = new Set(AXES.some(([name]) => name === axis) ? rows.words(axis) : []);
      const kept = [...values].filter((value) => known.has(value));
      if (kept.length) state.filters.set(axis, new Set(kept));
      else state.filters.delete(axis);
    }
    if (state.only.size) {
      const marks = new Set(rows.all.map((row) => rows.mark(row)));
      state.only = new Set([...state.only].filter((mark) => marks.has(mark)));
      if (!state.only.size) say("This page has none of the rows that the address names");
    }
  }

  function change() {
    keepAddress();
    drawFilters();
    draw();
  }

  const shownRows = () => [
    columns,
    current.slice(0, state.limit).map((row) => columns.map((column) => column.text(row))),
  ];
  const copies = copyButtons(shownRows);
  const element = h(
    "section",
    { id: "measurements" },
    h("h2", {}, "Measurements"),
    filters,
    h("div", { class: "bar" }, search, group, clear, copies),
    count,
    times.figure,
    h(
      "div",
      {
        class: "scroll tall",
        ...REGION,
        "aria-label": "Table of all measurements",
      },
      body,
    ),
    h(
      "p",
      { class: "soft" },
      `Every case and phase. Standing: ${shown.rules.standing}. n is samples / launches; GFLOP/s from executed operations. A network's name opens its samples, its protocol and the line that repeats it.`,
    ),
    h("div", { class: "bar" }, more),
  );
  const tradeoff = dots
    ? h("section", { id: "tradeoff" }, h("h2", {}, "Speed against accuracy"), dots.figure)
    : null;
  return {
    element,
    tradeoff,
    change: () => {
      forgetUnknown();
      drawFilters();
      draw();
    },
  };
}

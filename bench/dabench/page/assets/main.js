// Puts the page together from its embedded data; a served page renews it.

const RENEW_MS = 2000;

// Samples are read when somebody asks for them; what failed is asked for again.
function once(read) {
  let promise = null;
  return () => {
    promise ??= read().catch((error) => {
      promise = null;
      throw error;
    });
    return promise;
  };
}

// Lists of a table's runs are made with their section: they are as they come.
const openDetails = (main) => [...main.querySelectorAll("details[open]:not(.sources)")];
const closedDetails = () => [...document.querySelectorAll("details:not([open], .sources)")];

// What is folded, by its section and its own line.
function nameOf(details) {
  const section = details.closest("section")?.id ?? "";
  const card = details.closest(".answer")?.querySelector("h3").textContent ?? "";
  return `${section} ${card} ${details.dataset.run ?? ""}`;
}

function build(shown, samplesOf) {
  const main = document.querySelector("main");
  const before = new Set(openDetails(main).map(nameOf));
  finish(main);
  readAddress();
  const rows = new Rows(shown.measured);
  const dialog = caseDialog(rows, shown, samplesOf);
  const explore = rows.length ? explorer(rows, shown, dialog.open) : null;
  const openKeys = (keys) => {
    if (keys.length === 1) {
      dialog.open(keys[0]);
      return;
    }
    state.filters.clear();
    state.search = "";
    state.section = "";
    state.only = new Set(keys.map(markOf));
    state.sort = "median_s";
    state.descending = false;
    keepAddress(true);
    explore.change();
    document.getElementById("measurements").scrollIntoView();
  };
  const openSection = (id) => {
    state.section = id;
    keepAddress(true);
    goTo(id);
  };
  const { elements, contents } = reportSections(shown);
  const problem = shown.problem
    ? h(
        "p",
        { role: "alert", class: "problem" },
        `Some records cannot be read just now: ${shown.problem}`,
      )
    : null;
  main.replaceChildren(
    ...[
      problem,
      answersSection(shown, rows, openKeys, openSection),
      explore?.tradeoff,
      explore?.element,
      ...elements,
      provenance(shown),
      dialog.dialog,
    ].filter(Boolean),
  );
  for (const details of main.querySelectorAll("details")) {
    if (before.has(nameOf(details))) {
      details.open = true;
      // At once, so that the page is as long as it was.
      fills.get(details)?.();
    }
  }
  const links = [
    ["answers", "The answers"],
    ...(explore?.tradeoff ? [["tradeoff", "Speed against accuracy"]] : []),
    ...(explore ? [["measurements", "Measurements"]] : []),
    ...contents,
    ["provenance", "Where the numbers come from"],
  ];
  document.querySelector("nav.contents ul").replaceChildren(
    ...links.map(([id, label]) =>
      h(
        "li",
        {},
        h(
          "a",
          {
            href: `#section=${id}`,
            onclick: (event) => {
              event.preventDefault();
              openSection(id);
            },
          },
          label,
        ),
      ),
    ),
  );
  document.getElementById("made").textContent = shown.made;
  explore?.change();
  const arrive = () => {
    readAddress();
    explore?.change();
    if (state.open) dialog.show(state.open);
    else if (dialog.dialog.open) dialog.close();
    else if (state.section) goTo(state.section);
  };
  // An address that is typed is one, too.
  window.onpopstate = arrive;
  return arrive;
}

// Opens a section and goes there.
function goTo(id) {
  const found = document.querySelector(`main > section[id="${CSS.escape(id)}"]`);
  if (!found) return;
  const details = found.querySelector(":scope > details");
  if (details) details.open = true;
  found.scrollIntoView();
  const title = found.querySelector("h2, h3");
  title.tabIndex = -1;
  title.focus({ preventScroll: true });
}

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  document.getElementById("theme").setAttribute("aria-pressed", String(name === "dark"));
  return redrawCharts();
}

// On paper everything is open, drawn, and dark on white.
async function prepareForPaper() {
  const before = {
    theme: document.documentElement.dataset.theme,
    closed: closedDetails(),
  };
  for (const details of before.closed) details.open = true;
  // Their content is made when they have heard of it.
  await new Promise((done) => {
    setTimeout(done, 50);
  });
  await setTheme("light");
  // One that cannot be drawn keeps nothing else from the paper.
  await Promise.allSettled(
    [...document.querySelectorAll("main .chart")].map((each) => starts.get(each)?.()),
  );
  return () => {
    for (const details of before.closed) details.open = false;
    setTheme(before.theme);
  };
}

let printing = false;

async function printPage() {
  if (printing) return;
  printing = true;
  const restore = await prepareForPaper();
  window.addEventListener(
    "afterprint",
    () => {
      restore();
      printing = false;
    },
    { once: true },
  );
  window.print();
}

// A served page asks now and then whether rows have come in; its answer is data, like the page's own.
async function renew(known) {
  try {
    const version = await (await fetch("version")).text();
    // Nobody is disturbed who looks at a case.
    if (version !== known && !document.querySelector("dialog[open]")) {
      const shown = await inflated(await (await fetch("shown")).blob());
      // Somebody may have opened one meanwhile: then the next time.
      if (document.querySelector("dialog[open]")) return;
      const at = window.scrollY;
      const { id, selectionStart, dataset } = document.activeElement ?? {};
      build(
        shown,
        once(async () => inflated(await (await fetch("samples")).blob())),
      );
      window.scrollTo(0, at);
      const chips = [...document.querySelectorAll("[data-chip]")];
      const field = id
        ? document.getElementById(id)
        : chips.find((each) => dataset?.chip && each.dataset.chip === dataset.chip);
      field?.focus({ preventScroll: true });
      if (selectionStart !== undefined && selectionStart !== null)
        field?.setSelectionRange(selectionStart, selectionStart);
      say("New rows have come in");
      known = version;
    }
  } catch {
    say("The server does not answer");
  } finally {
    setTimeout(() => renew(known), RENEW_MS);
  }
}

async function start() {
  setTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  document
    .getElementById("theme")
    .addEventListener("click", () =>
      setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"),
    );
  document.getElementById("print").addEventListener("click", printPage);
  // The browser's own key for it would not wait for charts.
  window.addEventListener("keydown", (event) => {
    const command = /Mac/.test(navigator.platform) ? event.metaKey : event.ctrlKey;
    if (command && !event.shiftKey && !event.altKey && event.key.toLowerCase() === "p") {
      event.preventDefault();
      printPage();
    }
  });
  document.querySelector("a.skip").addEventListener("click", (event) => {
    event.preventDefault();
    document.getElementById("main").focus();
  });
  const shown = await unpacked("shown");
  build(
    shown,
    once(() => unpacked("samples")),
  )();
  // Who prints by the browser's own menu gets what can be had at once; charts that were not drawn
  // say so on paper (page.css).
  window.addEventListener("beforeprint", () => {
    const closed = closedDetails();
    for (const details of closed) details.open = true;
    const close = () => {
      for (const details of closed) details.open = false;
    };
    window.addEventListener("afterprint", close, { once: true });
  });
  const version = document.documentElement.dataset.version;
  if (version) setTimeout(() => renew(version), RENEW_MS);
  document.documentElement.dataset.ready = "yes";
}

// For the console, and for tests of the numbers' forms.
window.dabench = { formatBytes, formatInterval, formatSeconds, prepareForPaper, significant };
start();

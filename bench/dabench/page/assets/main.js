// Puts the page together from its embedded data; a served page renews it.

const RENEW_MS = 2000;

let unpackedSamples = null;

function build(shown, samplesOf) {
  drawn.clear();
  readAddress();
  const rows = new Rows(shown.measured);
  const dialog = caseDialog(rows, shown, samplesOf);
  const explore = rows.length ? explorer(rows, shown, dialog.open) : null;
  const openKeys = (keys) => {
    if (keys.length === 1) {
      dialog.open(keys[0]);
      return;
    }
    // The filters that let these rows through.
    state.filters.clear();
    state.search = "";
    const found = keys.map((key) => rows.byName.get(key)).filter((row) => row !== undefined);
    for (const axis of ["machine", "run_id", "family", "model", "batch", "size", "mode", "phase", "protocol", "device"]) {
      if (rows.words(axis).length > 1) state.filters.set(axis, new Set(found.map((row) => String(rows.get(row, axis)))));
    }
    state.sort = "median_s";
    state.descending = false;
    keepAddress(true);
    explore.change();
    document.getElementById("measurements").scrollIntoView();
  };
  const { elements, contents } = reportSections(shown);
  const main = document.querySelector("main");
  const problem = shown.problem ? h("p", { role: "alert", class: "problem" }, `Some records cannot be read just now, so this is what was there before: ${shown.problem}`) : null;
  const first = [
    ["answers", "The answers"],
    ...(explore?.tradeoff ? [["tradeoff", "Speed against accuracy"]] : []),
    ...(explore ? [["measurements", "Measurements"]] : []),
  ];
  main.replaceChildren(
    ...[problem, answersSection(shown, rows, openKeys), explore?.tradeoff, explore?.element, ...elements, provenance(shown), dialog.dialog].filter(Boolean),
  );
  const links = [...first, ...contents, ["provenance", "Where the numbers come from"]];
  document.querySelector("nav.contents ul").replaceChildren(...links.map(([id, label]) => h("li", {}, h("a", {
    href: `#section=${id}`,
    onclick: (event) => { event.preventDefault(); history.replaceState(null, "", `#section=${id}`); goTo(id); },
  }, label))));
  document.getElementById("made").textContent = `${shown.runs.length} ${shown.runs.length === 1 ? "run" : "runs"}; made ${shown.made.slice(0, 16).replace("T", " ")} UTC by dabench ${shown.dabench ?? ""}`;
  explore?.change();
  const arrive = () => {
    const section = readAddress();
    explore?.change();
    if (state.open) dialog.open(state.open);
    else if (dialog.dialog.open) dialog.close();
    if (section) goTo(section);
  };
  window.onpopstate = arrive;
  window.onhashchange = arrive;
  if (state.open) dialog.open(state.open);
  const asked = new URLSearchParams(location.hash.slice(1)).get("section");
  if (asked) goTo(asked);
}

// Opens a section and goes there.
function goTo(id) {
  const found = document.getElementById(id);
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
  redrawCharts();
}

// A served page asks now and then whether rows have come in; its answer is data, like the page's own.
async function renew(known) {
  try {
    const version = await (await fetch("version")).text();
    if (version !== known) {
      const shown = await inflated(await (await fetch("shown")).blob());
      unpackedSamples = null;
      const at = window.scrollY;
      const focus = document.activeElement?.closest("dialog") ? null : document.activeElement?.id;
      if (!document.querySelector("dialog[open]")) {
        build(shown, () => (unpackedSamples ??= fetch("samples").then((answer) => answer.blob()).then(inflated)));
        window.scrollTo(0, at);
        if (focus) document.getElementById(focus)?.focus();
        say("New rows have come in");
        known = version;
      }
    }
  } catch {
    say("The server does not answer");
  }
  setTimeout(() => renew(known), RENEW_MS);
}

async function start() {
  setTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  document.getElementById("theme").addEventListener("click", () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
  const shown = await unpacked("shown");
  build(shown, () => (unpackedSamples ??= unpacked("samples")));
  // On paper there is nothing to open.
  window.addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
  });
  const version = document.documentElement.dataset.version;
  if (version) setTimeout(() => renew(version), RENEW_MS);
  document.documentElement.dataset.ready = "yes";
}

// For the console, and for tests of the numbers' forms.
window.dabench = { formatBytes, formatInterval, formatSeconds, significant };
start();

// What is looked at, kept in the address: #case=...&filter=...

// Rows that are shown at once, and added when somebody asks for more.
const STEP = 50;

const state = {
  filters: new Map(),
  search: "",
  sort: "",
  descending: false,
  grouped: true,
  open: "",
  section: "",
  // Not part of the address: how many rows are shown.
  limit: STEP,
};

const packed = (values) => [...values].map(encodeURIComponent).join(",");

function readAddress() {
  const found = new URLSearchParams(location.hash.slice(1));
  state.filters = new Map();
  for (const part of (found.get("filter") ?? "").split(";").filter(Boolean)) {
    const [axis, values] = part.split(":");
    const known = (values ?? "").split(",").filter(Boolean);
    try {
      state.filters.set(decodeURIComponent(axis), new Set(known.map(decodeURIComponent)));
    } catch {
      // Somebody shortened the address: what is left of it still counts.
    }
  }
  state.search = found.get("search") ?? "";
  state.sort = found.get("sort") ?? "";
  state.descending = found.get("order") === "descending";
  state.grouped = found.get("group") !== "no";
  state.open = found.get("case") ?? "";
  state.section = found.get("section") ?? "";
}

function address(changed = {}) {
  const { filters: all, open, section } = { ...state, ...changed };
  const found = new URLSearchParams();
  const filters = [...all].filter(([, values]) => values.size);
  if (open) found.set("case", open);
  if (section) found.set("section", section);
  if (filters.length) {
    found.set(
      "filter",
      filters.map(([axis, values]) => `${encodeURIComponent(axis)}:${packed(values)}`).join(";"),
    );
  }
  if (state.search) found.set("search", state.search);
  if (state.sort) found.set("sort", state.sort);
  if (state.descending) found.set("order", "descending");
  if (!state.grouped) found.set("group", "no");
  return `#${found}`;
}

// Opening a case is a step back for the browser's button; a filter is not.
function keepAddress(step = false) {
  if (address() === location.hash) return;
  if (step) history.pushState(null, "", address());
  else history.replaceState(null, "", address());
}

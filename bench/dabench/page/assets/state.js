// What is looked at, kept in the address: #case=...&filter=...

// Rows that are shown at once, and added when somebody asks for more.
const STEP = 50;

const state = {
  filters: new Map(),
  // Marks of the rows that an answer rests on; empty lets all rows through.
  only: new Set(),
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

// A row's name in eight characters (FNV-1a): addresses of many rows stay short enough to be sent.
function markOf(name) {
  let hash = 0x811c9dc5;
  for (let at = 0; at < name.length; at += 1)
    hash = Math.imul(hash ^ name.charCodeAt(at), 0x01000193);
  return (hash >>> 0).toString(16).padStart(8, "0");
}

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
  state.only = new Set((found.get("rows") ?? "").split(",").filter(Boolean));
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
  if (state.only.size) found.set("rows", [...state.only].join(","));
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

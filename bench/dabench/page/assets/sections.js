// What reports say: sections of text, tables, charts and pictures.

function answersSection(shown, rows, openKeys, openSection) {
  const short = (text) =>
    [...rows.short].reduce((said, [name, shown_]) => said.replaceAll(name, shown_), text);
  const linkOf = (each) => {
    if (each.keys.length)
      return h(
        "button",
        { type: "button", class: "link", onclick: () => openKeys(each.keys) },
        each.keys.length > 1 ? "its rows" : "its row",
      );
    const same = shown.sections
      .map((section, n) => [section, n])
      .filter(([section]) => section.title === each.section?.title);
    const found = same[each.section?.number - 1];
    return found
      ? h(
          "button",
          {
            type: "button",
            class: "link",
            onclick: () => openSection(sectionIds(shown)[found[1]]),
          },
          "its tables",
        )
      : null;
  };
  const line = (each) => [
    h("dt", {}, rich(each.task)),
    h("dd", {}, rich(short(each.text)), " ", linkOf(each)),
  ];
  return h(
    "section",
    { id: "answers" },
    h("h2", {}, "The answers"),
    h(
      "p",
      { class: "soft" },
      `Each network in its best way, which was found by the same samples: the best of many ways looks a little better than it is. Verdicts are of ${shown.rules.standing}.`,
    ),
    h(
      "div",
      { class: "answers" },
      shown.answers.map(({ machine, first, lines }) =>
        h(
          "div",
          { class: "answer" },
          h("h3", {}, machine),
          h("dl", {}, lines.slice(0, first).map(line)),
          lines.length > first
            ? moreLines(lines.slice(first).map((each) => () => line(each)))
            : null,
        ),
      ),
    ),
    shown.answers.length
      ? null
      : h("p", {}, "Nothing was measured of which two could be compared."),
  );
}

// What is folded -> what makes its content.
const fills = new WeakMap();

// Permalinks go by titles: on a served page sections come and go.
function sectionIds(shown) {
  const seen = new Map();
  return shown.sections.map(({ title }) => {
    const name = plain(title)
      .toLowerCase()
      .replace(/[^a-z0-9]+/g, "-");
    seen.set(name, (seen.get(name) ?? 0) + 1);
    return `about-${name}-${seen.get(name)}`;
  });
}

// Thousands of lines are made when somebody wants them.
function moreLines(makers) {
  const list = h("dl", {});
  const fill = () => {
    if (!list.children.length) list.append(...makers.flatMap((make) => make()));
  };
  const details = h(
    "details",
    { ontoggle: () => details.open && fill() },
    h("summary", {}, `${makers.length} more`),
    list,
  );
  fills.set(details, fill);
  return details;
}

function reportSections(shown) {
  const elements = [];
  const contents = [];
  const ids = sectionIds(shown);
  shown.sections.forEach((section, number) => {
    const id = ids[number];
    const photos = section.blocks.filter((block) => block.kind === "photo");
    const content = h("div", {});
    // Made when it is first opened: a page of many runs is read in parts.
    const fill = () => {
      if (content.children.length) return;
      section.blocks.forEach((block, place) => {
        if (block.kind === "photo" && block !== photos[0]) return;
        content.append(blockOf(block, section, place, photos, number + 1));
      });
    };
    const details = h(
      "details",
      { class: "section", ontoggle: () => details.open && fill() },
      h("summary", {}, h(section.level > 2 ? "h3" : "h2", {}, rich(section.title))),
      content,
    );
    fills.set(details, fill);
    elements.push(h("section", { id }, details));
    if (section.level <= 2) contents.push([id, plain(section.title)]);
  });
  return { elements, contents };
}

function blockOf(block, section, place, photos, number) {
  if (block.kind === "text") return h("p", {}, rich(block.text));
  if (block.kind === "list") return listOf(block, section, place);
  if (block.kind === "table")
    return reportTable(block, `section ${number}, ${plain(section.title)}`, place);
  if (block.kind === "chart") return chart(block.spec, block.caption, { least: 320 }).figure;
  return photosOf(photos);
}

// A number in brackets is a row of the table that follows: it lights up.
function listOf(block, section, place) {
  const table = section.blocks.slice(place + 1).find((each) => each.kind === "table");
  const linked = table && table.caption.includes("numbers in brackets are rows");
  const items = block.items.map((text) =>
    h(
      "li",
      {},
      linked
        ? text
            .split(/(\[\d+(?:, \d+)*\])/)
            .flatMap((part) => (/^\[\d/.test(part) ? rowLinks(part) : rich(part)))
        : rich(text),
    ),
  );
  return h("ul", { class: "prose" }, items);
}

function rowLinks(part) {
  const light = (event) => {
    const numbers = part.match(/\d+/g);
    const section = event.target.closest("section");
    for (const row of section.querySelectorAll("tr[data-row]")) {
      row.classList.toggle("lit", numbers.includes(row.dataset.row));
    }
    section.querySelector("tr.lit")?.scrollIntoView({ block: "center" });
  };
  return [
    h(
      "button",
      { type: "button", class: "link", onclick: light, "aria-label": `Show rows ${part}` },
      part,
    ),
  ];
}

// Pictures of trainings: one by itself, or two under a slider.
function photosOf(photos) {
  if (photos.length === 1) return photoOf(photos[0]);
  const choose = (label, chosen) => {
    const select = h(
      "select",
      { "aria-label": label, onchange: () => draw() },
      photos.map((photo, n) =>
        h("option", { value: String(n), selected: n === chosen }, photo.caption.split(":")[0]),
      ),
    );
    return select;
  };
  const [left, right] = [choose("Left picture", 0), choose("Right picture", 1)];
  const [under, over] = [h("img", {}), h("img", {})];
  const box = h("div", { class: "slider" }, under, over);
  const range = h("input", {
    type: "range",
    min: "0",
    max: "100",
    value: "50",
    class: "wide",
    "aria-label": "How much of the left picture is seen",
    oninput: (event) => box.style.setProperty("--at", `${event.target.value}%`),
  });
  const draw = () => {
    for (const [image, select] of [
      [under, left],
      [over, right],
    ]) {
      const photo = photos[Number(select.value)];
      image.src = photo.source;
      image.alt = plain(photo.caption);
      image.width = photo.width;
      image.height = photo.height;
    }
  };
  draw();
  return h(
    "figure",
    { class: "photo" },
    h("div", { class: "bar" }, left, right),
    box,
    range,
    h(
      "figcaption",
      {},
      "Two runs beside one another: input, truth, prediction, errors in red, from left to right; the slider moves between them. Compressed for the page; the report has the originals.",
    ),
  );
}

function photoOf(photo) {
  return h(
    "figure",
    { class: "photo" },
    h("img", {
      src: photo.source,
      alt: plain(photo.caption),
      width: photo.width,
      height: photo.height,
      loading: "lazy",
    }),
    h("figcaption", {}, rich(photo.caption)),
  );
}

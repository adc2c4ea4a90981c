// The measurements: columns of numbers and of words, read by row and name.

function shortNames(models) {
  const ends = models.map((model) =>
    model.startsWith("trained:") ? `trained:${model.split("/").at(-1)}` : model,
  );
  const known = new Map(models.map((model, n) => [model, ends[n]]));
  return new Set(ends).size === models.length ? known : new Map();
}

function axisOf(column) {
  const values =
    column.words ??
    [...new Set(column.values)].filter((value) => value !== null).sort((a, b) => a - b);
  const kept = values.filter((value) => value !== "");
  const places = new Map(kept.map((value, n) => [value, n]));
  const ofWord = column.words?.map((word) => places.get(word) ?? -1);
  const codes = Int32Array.from(column.index ?? column.values, (each) =>
    ofWord ? ofWord[each] : (places.get(each) ?? -1),
  );
  return { words: kept.map(String), codes };
}

class Rows {
  constructor(columns) {
    this.columns = Object.assign(Object.create(null), columns);
    const first = Object.values(columns)[0];
    this.length = first ? (first.index ?? first.values).length : 0;
    this.all = Array.from({ length: this.length }, (_, row) => row);
    this.names = this.all.map(
      (row) => `${this.get(row, "run_id")}|${this.get(row, "case_id")}|${this.get(row, "phase")}`,
    );
    this.byName = new Map(this.names.map((name, row) => [name, row]));
    this.texts = null;
    this.marks = null;
    this.axes = new Map();
    this.short = shortNames(this.words("model"));
  }

  // A name as it is shown: of a trained network without the folders that lead to it.
  shown(name, value) {
    return name === "model" ? (this.short.get(value) ?? value) : value;
  }

  get(row, name) {
    const column = this.columns[name];
    if (!column) return null;
    return column.index ? column.words[column.index[row]] : column.values[row];
  }

  // A column as an axis to filter by: its words, in the order of numbers or of their first row, and
  // of each row the number of its word, -1 where it has none.
  axis(name) {
    let known = this.axes.get(name);
    if (!known) {
      known = this.columns[name]
        ? axisOf(this.columns[name])
        : { words: [], codes: new Int32Array(this.length).fill(-1) };
      this.axes.set(name, known);
    }
    return known;
  }

  words(name) {
    return this.axis(name).words;
  }

  mark(row) {
    this.marks ??= this.names.map(markOf);
    return this.marks[row];
  }

  text(row) {
    this.texts ??= this.all.map((each) =>
      Object.keys(this.columns)
        .filter((name) => this.columns[name].words && name !== "command")
        .map((name) => this.get(each, name))
        .join(" ")
        .toLowerCase(),
    );
    return this.texts[row];
  }
}

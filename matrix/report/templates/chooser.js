// The chooser: who reads what a quantizer made of a model. After filter.js, whose squares it reads.
function answer() {
  const { of, by } = chooser.elements;
  const own = squares.filter((square) => square.model === of.value && square.quantizer === by.value);
  const seen = new Set();
  const distinct = own.filter(({ address }) => !seen.has(address) && seen.add(address));
  const schemes = [...new Set(distinct.map((square) => square.scheme))];
  const box = find("#chooser .answer");
  box.replaceChildren(...schemes.map((scheme) => ofScheme(scheme, distinct.filter((square) => square.scheme === scheme))));
  if (!schemes.length) box.append(text("p", "No cell of this profile tries this pair: choose another model or quantizer."));
}

function text(tag, words, className = "") {
  const element = document.createElement(tag);
  element.textContent = words;
  element.className = className;
  return element;
}

function ofScheme(scheme, own) {
  const section = document.createElement("section");
  section.append(text("h3", scheme));
  const settled = own.filter((square) => !square.flaky);
  const works = settled.filter((square) => square.verdict === "works");
  const byCause = grouped(settled.filter((square) => !works.includes(square)), (square) => square.cause?.id || square.verdict);
  const grave = (group) => group.every((square) => square.verdict !== "garbage");
  section.append(...[...byCause.values()].sort((a, b) => grave(a) - grave(b)).map(failing));
  const flaky = own.filter((square) => square.flaky);
  if (flaky.length) section.append(turning(flaky));
  if (works.length) section.append(working(works));
  return section;
}

function grouped(items, key) {
  const groups = new Map();
  for (const item of items) groups.set(key(item), [...(groups.get(key(item)) || []), item]);
  return groups;
}

function failing(group) {
  const { cause, model, quantizer } = group[0];
  const block = text("div", "", "case");
  block.append(...[...grouped(group, (square) => square.verdict).values()].map(engines));
  if (!cause) return block;
  const why = labelled("Why: ", `${cause.title}. `);
  why.append(linkOf(`#cause=${encodeURIComponent(cause.id)}`, "More"));
  block.append(why);
  if (cause.fix) block.append(labelled("Fix: ", cause.fix));
  if (!cause.repair) return block;
  const repaired = squares.filter((square) => square.quantizer === `${quantizer}+repaired` && square.model === model
    && square.scheme === group[0].scheme && group.some(({ engine }) => engine === square.engine));
  const line = labelled("This file: ", repaired.length ? "" : cause.repair);
  const command = text("code", "matrix repair FOLDER --out COPY");
  if (repaired.length) line.append(command, " mends it. The copy: ");
  else if (!cause.repair.startsWith("None")) line.append(" ", command, " makes the repairs that it knows, in a copy.");
  for (const square of repaired) line.append(linkTo(square), ` in ${square.engine} `);
  block.append(line);
  return block;
}

function turning(group) {
  const block = text("div", "", "case");
  block.append(...[...grouped(group, (square) => square.verdict).values()].map(engines));
  block.append(labelled("Flaky: ", "it came to good and to bad ends by the same inputs, so rely on neither."));
  return block;
}

function labelled(label, words) {
  const line = document.createElement("p");
  line.append(text("b", label), words);
  return line;
}

function linkOf(address, words) {
  const link = text("a", words);
  link.href = address;
  return link;
}

function engines(group) {
  const line = text("p", "", "engines");
  line.append(linkTo(group[0]), " in ");
  group.forEach((square, number) => {
    const link = text("a", square.engine);
    link.href = square.address;
    line.append(number ? ", " : "", link);
  });
  return line;
}

function working(group) {
  const block = text("div", "", "case");
  block.append(engines(group));
  // Engines stand by product and by release, so the last of a family is its newest.
  const newest = [...grouped(group, ({ engine }) => family(engine)).values()].map((of) => of.at(-1));
  for (const [install, of] of grouped(newest, ({ column }) => column.install)) {
    const place = install && document.getElementById(install);
    const line = text("p", `${of.map(since).join("; ")}${place ? ": " : ""}`, "since");
    if (place) line.append(find("code", place).cloneNode(true), " ", find("a", place).cloneNode(true));
    block.append(line);
  }
  return block;
}

// What engines are that differ in their releases alone.
const family = (engine) => engine.replace(/[0-9][^+]*/g, "#");

// Since which release a family reads it, without one between that does not.
function since(newest) {
  const own = squares.filter((square) => square.row === newest.row && square.model === newest.model && family(square.engine) === family(newest.engine));
  const last = own.indexOf(newest);
  let first = last;
  while (first > 0 && own[first - 1].verdict === "works" && !own[first - 1].flaky) first -= 1;
  const from = first < last ? `each that was tried since ${own[first].engine}` : "";
  const newer = last < own.length - 1 ? `, but not ${own.at(-1).engine}` : "";
  return `${newest.engine}${from && `, as ${from}`}${newer}`;
}

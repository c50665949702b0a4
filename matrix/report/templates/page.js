"use strict";
// The page is whole without this: it filters, answers, moves by arrow keys, opens stories in place.
const find = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const form = find("form.filter");
const causes = all("tr[data-cause]").map((row) => ({
  id: row.dataset.cause,
  title: find(".title", row).textContent,
  fix: find(".fix", row)?.textContent || "",
  repair: find(".repair", row)?.textContent || "",
}));

// ------------------------------------------------------------------------------------- squares
// Read once from the tables: there may be 20,000, so nothing below searches the document for one.
const squares = [];
const tables = all("table.grid").map((element) => {
  const columns = [];
  const heads = element.tHead.rows;
  const names = heads.length > 1 ? [...heads[1].cells].map((head) => head.textContent) : [];
  for (const head of [...heads[0].cells].slice(1)) {
    for (let span = head.colSpan; span > 0; span--) {
      const model = names.length ? names[columns.length] : heads[0].dataset.model;
      columns.push({ engine: head.dataset.engine, install: head.dataset.install, model, head, shown: 0 });
    }
  }
  const table = { element, columns, lines: [] };
  for (const line of element.tBodies[0].rows) {
    const entry = { element: line, squares: [] };
    table.lines.push(entry);
    for (const row of line.dataset.quantizer === undefined ? all("[data-quantizer]", line) : [line]) {
      for (const link of row.getElementsByTagName("a")) {
        const column = columns[link.dataset.column ?? link.parentElement.cellIndex - 1];
        const label = link.getAttribute("aria-label");
        const square = {
          link, column, row, quantizer: row.dataset.quantizer, scheme: row.dataset.scheme,
          engine: column.engine, model: column.model, verdict: label.split(":")[0],
          cause: causes[link.dataset.cause], changed: link.dataset.changed || "", flaky: !!link.dataset.flaky,
        };
        link.square = square;
        entry.squares.push(square);
        squares.push(square);
      }
    }
  }
  return table;
});
const total = new Set(squares.map(({ link }) => link.pathname)).size;

// ------------------------------------------------------------------------------------- filters
const KEYS = ["words", "verdict", "cause", "quantizer", "engine", "model", "flaky", "changed"];
const boxes = all("input[name=verdict]", form);

function option(value, text) {
  const element = document.createElement("option");
  element.value = value;
  element.textContent = text;
  return element;
}

for (const key of ["quantizer", "engine", "model"]) {
  const values = new Set(squares.map((square) => square[key]));
  form.elements[key].append(...[...values].map((value) => option(value, value)));
}
form.elements.cause.append(...causes.map(({ id, title }) => option(id, title.slice(0, 90))));
for (const key of ["flaky", "changed"]) hide(form.elements[key].parentElement, !squares.some((square) => square[key]));

function wishes() {
  const wanted = {};
  for (const key of ["words", "cause", "quantizer", "engine", "model"]) {
    if (form.elements[key].value) wanted[key] = form.elements[key].value;
  }
  const checked = boxes.filter((box) => box.checked).map((box) => box.value);
  if (checked.length < boxes.length) wanted.verdict = checked.join(",");
  if (form.elements.flaky.checked) wanted.flaky = "yes";
  if (form.elements.changed.checked) wanted.changed = form.elements.changed.value;
  return wanted;
}

function matcher(wanted) {
  const words = (wanted.words || "").toLowerCase().split(/\s+/).filter(Boolean);
  const verdicts = "verdict" in wanted && new Set(wanted.verdict.split(","));
  return (square) => {
    if (verdicts && !verdicts.has(square.verdict)) return false;
    if (wanted.cause && square.cause?.id !== wanted.cause) return false;
    if (wanted.flaky && !square.flaky) return false;
    if (wanted.changed && (wanted.changed === "yes" ? !square.changed : square.changed !== wanted.changed)) return false;
    for (const key of ["quantizer", "engine", "model"]) {
      if (wanted[key] && square[key] !== wanted[key]) return false;
    }
    if (!words.length) return true;
    square.text ??= `${square.verdict} ${square.model} ${square.scheme} ${square.quantizer} ${square.engine} ${square.cause?.title || ""}`.toLowerCase();
    return words.every((word) => square.text.includes(word));
  };
}

function filter() {
  const wanted = wishes();
  const matches = matcher(wanted);
  const shown = new Map();
  for (const table of tables) {
    let inTable = 0;
    for (const column of table.columns) column.shown = 0;
    for (const line of table.lines) {
      let inLine = 0;
      for (const square of line.squares) {
        const match = matches(square);
        hide(square.link, !match);
        if (!match) continue;
        inLine += 1;
        square.column.shown += 1;
        if (!shown.has(square.link.pathname)) shown.set(square.link.pathname, square);
      }
      line.shown = inLine;
      if (line.squares.length) hide(line.element, !inLine);
      inTable += inLine;
    }
    hide(table.element.parentElement, !inTable);
    if (inTable) showColumns(table);
    let heading = null;
    for (const line of table.lines) {
      if (!line.squares.length) hide((heading = line).element, true);
      else if (heading && line.shown) hide(heading.element, false);
    }
  }
  for (const part of all("section.part")) hide(part, !find(".scroll:not([hidden])", part));
  const none = shown.size ? "" : " No cell matches: show all, or ask for less.";
  find("output", form).textContent = `${shown.size} of ${total} cells.${none}`;
  list(shown.size < total && shown.size <= 60 ? [...shown.values()] : []);
  return wanted;
}

function hide(element, hidden) {
  if (element.hidden !== hidden) element.hidden = hidden;
}

function showColumns({ element, columns }) {
  const heads = new Map();
  for (const { head, shown } of columns) heads.set(head, (heads.get(head) || 0) + (shown ? 1 : 0));
  for (const [head, span] of heads) {
    hide(head, !span);
    if (span && head.colSpan !== span) head.colSpan = span;
  }
  const hidden = columns.map(({ shown }) => !shown);
  if (String(hidden) === element.dataset.hidden) return;
  element.dataset.hidden = hidden;
  const models = element.tHead.rows[1];
  if (models) [...models.cells].forEach((head, place) => hide(head, hidden[place]));
  for (const line of element.tBodies[0].rows) {
    if (line.dataset.quantizer !== undefined) hidden.forEach((gone, place) => hide(line.cells[place + 1], gone));
  }
}

function list(matching) {
  const element = find("ol.matches");
  element.hidden = !matching.length;
  element.replaceChildren(...matching.map((square) => {
    const item = document.createElement("li");
    item.append(linkTo(square), ` ${square.model} by ${square.quantizer} (${square.scheme}) in ${square.engine}`);
    if (square.cause) item.append(`: ${square.cause.title}`);
    return item;
  }));
}

function linkTo(square, text = square.verdict) {
  const link = document.createElement("a");
  link.href = square.link.getAttribute("href");
  link.className = `badge ${square.link.className}`;
  link.textContent = `${square.link.firstChild.textContent} ${text}`;
  return link;
}

// ------------------------------------------------------------------------------------- address
const chooser = find("#chooser form");

function write() {
  const wanted = wishes();
  const params = new URLSearchParams(KEYS.filter((key) => key in wanted).map((key) => [key, wanted[key]]));
  if (chooser?.dataset.used) {
    params.set("of", chooser.elements.of.value);
    params.set("by", chooser.elements.by.value);
  }
  const address = `#${params}`;
  try {
    history.replaceState(null, "", address === "#" ? location.pathname + location.search : address);
  } catch {
    location.hash = address; // from a disk, some browsers let a page not replace its address
  }
}

function read() {
  const hash = location.hash.slice(1);
  if (hash && !hash.includes("=")) return reveal(hash);
  const params = new URLSearchParams(hash);
  for (const key of ["words", "cause", "quantizer", "engine", "model"]) form.elements[key].value = params.get(key) || "";
  const verdicts = params.get("verdict")?.split(",");
  for (const box of boxes) box.checked = !verdicts || verdicts.includes(box.value);
  form.elements.flaky.checked = params.has("flaky");
  form.elements.changed.checked = params.has("changed");
  form.elements.changed.value = params.get("changed") || "yes";
  if (chooser && params.has("of")) {
    chooser.dataset.used = "yes";
    chooser.elements.of.value = params.get("of");
    chooser.elements.by.value = params.get("by");
    answer();
  }
  if (Object.keys(filter()).length) find("#table").scrollIntoView();
}

function reveal(id) {
  const target = document.getElementById(id);
  for (let around = target?.closest("details"); around; around = around.parentElement.closest("details")) around.open = true;
  target?.scrollIntoView();
}

// ------------------------------------------------------------------------------------- chooser
function answer() {
  const { of, by } = chooser.elements;
  const own = squares.filter((square) => square.model === of.value && square.quantizer === by.value);
  const seen = new Set();
  const distinct = own.filter(({ link }) => !seen.has(link.pathname) && seen.add(link.pathname));
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
  const works = own.filter((square) => square.verdict === "works");
  const byCause = grouped(own.filter((square) => !works.includes(square)), (square) => square.cause?.id || square.verdict);
  const grave = (group) => group.every((square) => square.verdict !== "garbage");
  section.append(...[...byCause.values()].sort((a, b) => grave(a) - grave(b)).map(failing));
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
  if (repaired.length) line.append(text("code", "matrix repair FOLDER --out COPY"), " mends it. The copy: ");
  for (const square of repaired) line.append(linkTo(square), ` in ${square.engine} `);
  block.append(line);
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
    link.href = square.link.getAttribute("href");
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
  while (first > 0 && own[first - 1].verdict === "works") first -= 1;
  const from = first < last ? `each that was tried since ${own[first].engine}` : "";
  const newer = last < own.length - 1 ? `, but not ${own.at(-1).engine}` : "";
  return `${newest.engine}${from && `, as ${from}`}${newer}`;
}

// ---------------------------------------------------------------------------------------- keys
// One tab stop for each table of squares, as of any grid; arrows go on from there.
const items = (line) => [...line.cells].map((cell) => find("summary, a:not([hidden])", cell));
const nearest = (list, place) => {
  for (let away = 0; away <= Math.max(place, list.length); away++) {
    const item = list[place - away] || list[place + away];
    if (item) return item;
  }
  return null;
};

function step(item, key, far) {
  const cell = item.closest("td");
  const line = cell.parentElement;
  const lines = [...line.parentElement.rows].filter((row) => !row.hidden);
  const own = items(line);
  const place = cell.colSpan > 1 ? Number(line.dataset.place || 1) : cell.cellIndex;
  const down = (list) => {
    for (const other of list) {
      const next = nearest(items(other), place);
      if (next) {
        if (next.tagName === "SUMMARY") other.dataset.place = place;
        return next;
      }
    }
    return null;
  };
  const here = lines.indexOf(line);
  switch (key) {
    case "ArrowRight": return own.slice(cell.cellIndex + 1).find(Boolean);
    case "ArrowLeft": return own.slice(0, cell.cellIndex).reverse().find(Boolean);
    case "ArrowDown": return down(lines.slice(here + 1));
    case "ArrowUp": return down(lines.slice(0, here).reverse());
    case "Home": return (far ? lines.flatMap(items) : own).find(Boolean);
    case "End": return (far ? lines.flatMap(items) : own).findLast(Boolean);
    default: return undefined;
  }
}

for (const { element } of tables) {
  let stop = null;
  for (const item of all("td > a, summary", element)) {
    if (stop) item.tabIndex = -1;
    else stop = item;
  }
  element.addEventListener("focusin", ({ target }) => {
    if (target === stop || !target.matches("td > a, summary")) return;
    if (stop) stop.tabIndex = -1;
    stop = target;
    stop.tabIndex = 0;
  });
  element.addEventListener("keydown", (event) => {
    if (!event.target.matches("td > a, summary")) return;
    const next = step(event.target, event.key, event.ctrlKey || event.metaKey);
    if (next === undefined) return;
    event.preventDefault();
    next?.focus();
  });
  element.addEventListener("pointerover", ({ target }) => {
    const { square } = target;
    if (square && !target.title) target.title = [target.getAttribute("aria-label"), square.cause?.title].filter(Boolean).join(": ");
  });
  element.addEventListener("click", ({ target }) => {
    const head = target.closest("th[data-engine], tr[data-quantizer] > th");
    if (!head) return;
    const key = head.dataset.engine === undefined ? "quantizer" : "engine";
    const value = head.dataset.engine ?? head.parentElement.dataset.quantizer;
    form.elements[key].value = form.elements[key].value === value ? "" : value;
    filter();
    write();
  });
}

// ---------------------------------------------------------------------------------------- story
const story = find("#story");
document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || !/^cells\/[^/]+\.html$/.test(link.getAttribute("href"))) return;
  event.preventDefault();
  const frame = document.createElement("iframe"); // a new one, so that going back leaves the page
  frame.src = find(".apart", story).href = link.getAttribute("href");
  frame.title = link.getAttribute("aria-label") || link.textContent;
  find("iframe", story)?.remove();
  story.append(frame);
  story.showModal();
  story.addEventListener("close", () => {
    frame.remove();
    link.focus();
  }, { once: true });
});
find("button", story).addEventListener("click", () => story.close());
story.addEventListener("click", (event) => event.target === story && story.close());

form.hidden = false;
form.addEventListener("input", () => {
  filter();
  write();
});
form.addEventListener("reset", () => setTimeout(() => {
  form.elements.changed.value = "yes";
  filter();
  write();
}));
form.addEventListener("submit", (event) => event.preventDefault());
if (chooser) {
  chooser.hidden = false;
  chooser.addEventListener("input", () => {
    chooser.dataset.used = "yes";
    answer();
    write();
  });
  answer();
}
window.addEventListener("hashchange", read);
read();

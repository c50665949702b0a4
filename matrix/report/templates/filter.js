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
      const scheme = find("small", row).textContent;
      for (const link of row.getElementsByTagName("a")) {
        const column = columns[link.dataset.column ?? link.parentElement.cellIndex - 1];
        const label = link.getAttribute("aria-label");
        const square = {
          link, address: link.getAttribute("href"), column, row, quantizer: row.dataset.quantizer, scheme,
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
const total = new Set(squares.map(({ address }) => address)).size;

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
        if (!shown.has(square.address)) shown.set(square.address, square);
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
  link.href = square.address;
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

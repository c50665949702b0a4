// Arrow keys, stories in place, and the start. After filter.js and chooser.js.
// ---------------------------------------------------------------------------------------- keys
// One tab stop for each table of squares, as of any grid; arrows go on from there.
const HEADS = "th[data-engine], tr[data-quantizer] > th"; // each shows its cells alone
const ITEMS = `td > a, summary, ${HEADS}`;
const items = (line) => [...line.cells].map((cell) => (cell.hidden ? null : cell.matches(HEADS) ? cell : find("summary, a:not([hidden])", cell)));
const nearest = (list, place) => {
  for (let away = 0; away <= Math.max(place, list.length); away++) {
    const item = list[place - away] || list[place + away];
    if (item) return item;
  }
  return null;
};

function step(item, key, far, { element, columns }) {
  const cell = item.closest("td, th");
  const line = cell.parentElement;
  const lines = [...element.tBodies[0].rows].filter((row) => !row.hidden);
  const own = items(line);
  const isHead = cell.dataset.engine !== undefined;
  const place = isHead ? 1 + columns.findIndex(({ head, shown }) => head === cell && shown)
    : cell.colSpan > 1 ? Number(line.dataset.place || 1) : cell.cellIndex;
  const down = (list) => {
    for (const other of list) {
      const reached = items(other);
      if (place && reached[0]?.tagName === "TH") reached[0] = null; // a head is to the left, not below
      const next = nearest(reached, place);
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
    case "ArrowUp": return isHead ? null : down(lines.slice(0, here).reverse()) || columns[place - 1]?.head;
    case "Home": return (far ? lines.flatMap(items) : own).find((it) => it && (isHead || it.tagName !== "TH"));
    case "End": return (far ? lines.flatMap(items) : own).findLast(Boolean);
    default: return undefined;
  }
}

for (const table of tables) {
  const { element } = table;
  let stop = null;
  for (const item of all("td > a, summary, th[data-engine], tr[data-quantizer] > th", element)) {
    if (stop || item.matches(HEADS)) item.tabIndex = -1;
    else stop = item;
  }
  element.addEventListener("focusin", ({ target }) => {
    if (target === stop || !target.matches(ITEMS)) return;
    if (stop) stop.tabIndex = -1;
    stop = target;
    stop.tabIndex = 0;
  });
  element.addEventListener("keydown", (event) => {
    const { target, key } = event;
    if (!target.matches(ITEMS)) return;
    const chooses = target.matches(HEADS) && (key === "Enter" || key === " ");
    const next = chooses ? target : step(target, key, event.ctrlKey || event.metaKey, table);
    if (next === undefined) return;
    event.preventDefault();
    if (chooses) target.click();
    next?.focus();
  });
  element.addEventListener("pointerover", ({ target }) => {
    const { square } = target;
    if (square && !target.title) target.title = [target.getAttribute("aria-label"), square.cause?.title].filter(Boolean).join(": ");
  });
  element.addEventListener("click", ({ target }) => {
    const head = target.closest(HEADS);
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
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || !/^cells\/[^/]+\.html#/.test(link.getAttribute("href"))) return;
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

form.hidden = !squares.length;
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
window.addEventListener("hashchange", () => {
  story.close(); // a story may lead back to the table
  read();
});
read();

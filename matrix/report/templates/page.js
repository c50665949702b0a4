// Arrow keys, stories in place, and the start. After filter.js and chooser.js.
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

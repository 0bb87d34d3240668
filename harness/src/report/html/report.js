"use strict";
// Search, filters and copying. All there is to read is there without them.

const filters = document.getElementById("filters");
if (filters) {
  filters.hidden = false;
  filters.addEventListener("submit", (event) => event.preventDefault());
  const search = document.getElementById("search");
  const boxes = [...filters.querySelectorAll("input[type=checkbox]")];
  const shown = document.getElementById("shown");
  const rows = [...document.querySelectorAll("#matrix tbody tr")].map((row) => ({
    row,
    text: row.querySelector("th").textContent.toLowerCase(),
    outcomes: [...row.querySelectorAll("td a")].map((link) => link.dataset.outcome),
  }));
  const apply = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter((word) => word);
    const wanted = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
    let count = 0;
    for (const { row, text, outcomes } of rows) {
      const show =
        words.every((word) => text.includes(word)) && (!wanted.size || outcomes.some((outcome) => wanted.has(outcome)));
      row.hidden = !show;
      count += show ? 1 : 0;
    }
    shown.textContent = `${count} of ${rows.length} scenarios shown`;
  };
  search.addEventListener("input", apply);
  boxes.forEach((box) => box.addEventListener("change", apply));
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !(event.target instanceof HTMLInputElement) && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      search.focus();
    }
  });
  apply();
}

for (const button of document.querySelectorAll("button[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const source = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "copied";
    } catch {
      // Not every browser lets a page from a file write there; the text is then ready to be copied by hand.
      getSelection().selectAllChildren(source);
      button.textContent = document.execCommand("copy") ? "copied" : "press Ctrl-C";
    }
  });
}

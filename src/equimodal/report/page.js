"use strict";
// Without this script the tables are as they were written. With it their headings are buttons.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    button.title = "Sort by this column";
    heading.replaceChildren(button);
    heading.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => sort(headings, body, column));
  });
}

function sort(headings, body, column) {
  const keyed = [...body.rows].map((row) => ({ row, key: row.cells[column].dataset.value ?? "" }));
  const known = keyed.filter(({ key }) => key !== "");
  const missing = keyed.filter(({ key }) => key === ""); // stay last in either direction
  const numeric = known.every(({ key }) => key.trim() !== "" && !Number.isNaN(Number(key)));
  const before = headings[column].getAttribute("aria-sort");
  // Of numbers one looks for the highest, of names for the first.
  const first = numeric ? "descending" : "ascending";
  const other = numeric ? "ascending" : "descending";
  const order = before === first ? other : first;
  const compare = numeric
    ? (a, b) => Number(a.key) - Number(b.key)
    : (a, b) => a.key.localeCompare(b.key, undefined, { numeric: true });
  known.sort((a, b) => (order === "ascending" ? compare(a, b) : compare(b, a)));
  body.append(...[...known, ...missing].map(({ row }) => row));
  headings.forEach((heading) => heading.setAttribute("aria-sort", "none"));
  headings[column].setAttribute("aria-sort", order);
}

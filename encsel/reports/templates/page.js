"use strict";
// The main table: headings sort, a field filters.
const main = document.getElementById("pairs-table");
const body = main.tBodies[0];
const textOf = (row, i) => row.cells[i].textContent.trim();
const numberOf = (text) => { const found = text.match(/^[(<]?(-?\d+(\.\d+)?(e[-+]?\d+)?)/); return found ? Number(found[1]) : NaN; };

function sort(head, i) {
  const down = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  const isName = head.classList.contains("name") && head.textContent !== "#";
  const key = (row) => isName ? textOf(row, i) : numberOf(textOf(row, i));
  const order = (a, b) => isName ? down * a.localeCompare(b) : Number.isNaN(a) - Number.isNaN(b) || down * (a - b);
  for (const other of main.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down === 1 ? "ascending" : "descending");
  body.append(...[...body.rows].map((row) => [key(row), row]).sort((a, b) => order(a[0], b[0])).map((one) => one[1]));
}

[...main.tHead.rows[0].cells].forEach((head, i) => {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  button.addEventListener("click", () => sort(head, i));
  head.append(button);
});

const filter = document.querySelector(".filter");
filter.hidden = false;
filter.querySelector("input").addEventListener("input", (event) => {
  const words = event.target.value.toLowerCase().split(/\s+/);
  let n = 0;
  for (const row of body.rows) {
    row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
    n += !row.hidden;
  }
  filter.querySelector("[role=status]").textContent = `${n} of ${body.rows.length}`;
});

// Curves: a checkbox shows or hides one.
for (const box of document.querySelectorAll("[data-shows]")) {
  const curve = document.querySelector(`[data-curve="${box.dataset.shows}"]`);
  const show = () => { curve.style.display = box.checked ? "" : "none"; };
  box.addEventListener("change", show);
  show();
}

// Print opens everything.
const details = [...document.querySelectorAll("details")];
let folded = [];
addEventListener("beforeprint", () => { folded = details.filter((one) => !one.open); folded.forEach((one) => { one.open = true; }); });
addEventListener("afterprint", () => folded.forEach((one) => { one.open = false; }));

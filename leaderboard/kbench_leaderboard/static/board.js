"use strict";
// DataTables sorts, pages and searches; here are only the filters, and the state in the address.
const form = document.getElementById("filters");
const status_ = document.getElementById("status");
const OF_KNOWLEDGE = ["setting", "knowledge", "control"];
const boards = [...document.querySelectorAll("table.board")].map((element) =>
  new DataTable(element, {
    pageLength: 50, autoWidth: false, order: [], orderClasses: false,
    layout: { topStart: null, topEnd: null, bottomStart: "info", bottomEnd: "paging", bottom2Start: "pageLength" },
    language: { lengthMenu: "rows a page _MENU_" },
  }));
function state() {
  const values = [...new FormData(form)].filter(([name, value]) => value && !(name === "rank" && value === "net"));
  return new URLSearchParams([...values, ...sorting.terms()]);
}

function isWanted(row, wanted) {
  // The model without knowledge is what all is read against: it stays where knowledge is filtered.
  return wanted.every(([name, value]) =>
    row[name] === value || value === "all" || (row.knowledge === "" && OF_KNOWLEDGE.includes(name)));
}

function show() {
  const values = new FormData(form);
  const wanted = Object.keys(boards[0]?.row(0).node()?.dataset ?? {})
    .map((name) => [name, values.get(name) || (name === "control" ? "none" : "all")]);
  const ranks = values.get("rank") === "score" ? ["score-rank", "net"] : ["net", "score-rank"];
  const ranked = ["task", "backbone", "tuning", ...ranks].map((name) => [name, "asc"]);
  let count = 0;
  sorting.draw(ranked, (table) => {
    const rows = table.rows().nodes();
    table.search.fixed("filters", (text, data, index) => isWanted(rows[index].dataset, wanted));
    table.search(values.get("q"));
  });
  for (const table of boards) count += table.rows({ search: "applied" }).count();
  const figures = values.get("figures");
  for (const part of document.querySelectorAll(".own")) part.hidden = figures === "published";
  for (const part of document.querySelectorAll(".published")) part.hidden = figures === "own";
  status_.textContent = figures === "published" ? "Published figures alone are shown." : `${count} rows are shown.`;
}

function restore() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  for (const field of form.querySelectorAll("select")) {
    const value = wanted.get(field.name) ?? "";
    field.value = [...field.options].some((option) => option.value === value) ? value : "";
  }
  form.elements.q.value = wanted.get("q") ?? "";
  form.elements.rank.value = wanted.get("rank") === "score" ? "score" : "net";
  sorting.restore(wanted);
  show();
}

const keep = () => history.replaceState(null, "", `#${state()}`);
const sorting = new Sorting(boards, keep);

if (form) {
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => {
    if (event.target.name === "rank") sorting.clear();
    keep();
    show();
  });
  form.addEventListener("reset", () => setTimeout(() => { sorting.clear(); keep(); show(); }));
  addEventListener("hashchange", () => { if (location.hash !== "#main") restore(); });
  restore();
}

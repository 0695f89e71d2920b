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
let sorts = new Map(); // what a reader sorted by: board -> [name of a column, direction]
let drawing = false;

// Columns go by their names, in addresses too: one more of them moves none.
const nameOf = (table, column) => table.column(column).header().dataset.column;
const columnOf = (table, name) => table.columns().header().toArray().findIndex((head) => head.dataset.column === name);
const byColumn = (table, [name, direction]) => [columnOf(table, name), direction];

function state() {
  const values = [...new FormData(form)].filter(([name, value]) => value && !(name === "rank" && value === "net"));
  return new URLSearchParams([...values, ...[...sorts].map(([at, by]) => [`sort${at}`, by.join("-")])]);
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
  drawing = true;
  boards.forEach((table, at) => {
    const rows = table.rows().nodes();
    table.search.fixed("filters", (text, data, index) => isWanted(rows[index].dataset, wanted));
    const wished = sorts.has(at) ? [sorts.get(at)] : ranked;
    table.search(values.get("q")).order(wished.map((by) => byColumn(table, by))).draw();
    count += table.rows({ search: "applied" }).count();
  });
  drawing = false;
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
  sorts = new Map();
  boards.forEach((table, at) => {
    const [, name, direction] = /^([a-z-]+)-(asc|desc)$/.exec(wanted.get(`sort${at}`) ?? "") ?? [];
    if (columnOf(table, name) >= 0) sorts.set(at, [name, direction]);
  });
  show();
}

const keep = () => history.replaceState(null, "", `#${state()}`);

if (form) {
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => {
    if (event.target.name === "rank") sorts.clear();
    keep();
    show();
  });
  form.addEventListener("reset", () => setTimeout(() => { sorts.clear(); keep(); show(); }));
  boards.forEach((table, at) => table.on("order", () => {
    const order = table.order();
    if (drawing) return;
    const [[column, direction] = []] = order;
    if (order.length === 1) sorts.set(at, [nameOf(table, column), direction]); else sorts.delete(at);
    keep();
  }));
  addEventListener("hashchange", () => { if (location.hash !== "#main") restore(); });
  restore();
}

"use strict";
// DataTables sorts, pages and searches; here are only the filters, and the state in the address.
const form = document.getElementById("filters");
const status_ = document.getElementById("status");
const TASK = 2, BACKBONE = 10, TUNING = 11; // columns
const OF_KNOWLEDGE = ["setting", "knowledge", "control"];
const boards = [...document.querySelectorAll("table.board")].map((element) =>
  new DataTable(element, {
    pageLength: 50, autoWidth: false, order: [], orderClasses: false,
    layout: { topStart: null, topEnd: null, bottomStart: "info", bottomEnd: "paging", bottom2Start: "pageLength" },
    language: { lengthMenu: "rows a page _MENU_" },
  }));
let sorts = new Map(); // what a reader sorted by: board -> [column, direction]
let drawing = false;

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
  const rank = values.get("rank") === "score" ? 1 : 0;
  let count = 0;
  drawing = true;
  boards.forEach((table, at) => {
    const rows = table.rows().nodes();
    table.search.fixed("filters", (text, data, index) => isWanted(rows[index].dataset, wanted));
    const ranked = [TASK, BACKBONE, TUNING, rank, 1 - rank].map((column) => [column, "asc"]);
    table.search(values.get("q")).order(sorts.has(at) ? [sorts.get(at)] : ranked).draw();
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
    const [, column, direction] = /^(\d+)-(asc|desc)$/.exec(wanted.get(`sort${at}`) ?? "") ?? [];
    if (Number(column) < table.columns().count()) sorts.set(at, [Number(column), direction]);
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
    if (order.length === 1) sorts.set(at, order[0].slice(0, 2)); else sorts.delete(at);
    keep();
  }));
  addEventListener("hashchange", () => { if (location.hash !== "#main") restore(); });
  restore();
}

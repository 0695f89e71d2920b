"use strict";
// DataTables sorts; which figure a cell shows is a matter of style alone. Here are the filters, and
// the state in the address.
const figures = document.getElementById("figures");
const form = document.getElementById("filters");
const status_ = document.getElementById("status");
const panels = [...document.querySelectorAll(".panel")];

// A figure is sorted as it is shown: whichever of them that is.
DataTable.ext.order.figure = function (settings, column) {
  const shown = figures.elements.figure.value;
  return this.api().column(column, { order: "index" }).nodes().toArray().map((cell) => {
    const text = cell.querySelector(`.f-${shown}`)?.firstChild?.data.trim().replace("−", "-");
    return Number.isNaN(parseFloat(text)) ? -Infinity : parseFloat(text);
  });
};

const tables = panels.map((panel) => new DataTable(panel.querySelector("table.matrix"), {
  paging: false, info: false, autoWidth: false, order: [], orderClasses: false,
  layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null },
  columnDefs: [{ targets: "figure", orderDataType: "figure", type: "num", orderSequence: ["desc", "asc"] }],
}));

// What settings are kept apart by comes first, and is no column that a reader sorted by.
for (const table of tables) {
  table.on("draw", () => {
    const [[sorted, direction] = []] = table.order();
    table.columns().header().toArray().forEach((head, at) => {
      if (at === sorted) head.setAttribute("aria-sort", `${direction}ending`); else head.removeAttribute("aria-sort");
    });
  });
}

function state() {
  const values = [...new FormData(figures), ...new FormData(form)];
  const usual = figures.querySelector("input").value;
  const told = values.filter(([name, value]) => value && !(name === "figure" && value === usual));
  return new URLSearchParams([...told, ...sorting.terms()]);
}

function show() {
  const values = new FormData(form);
  const [setting, seeds, together] = ["setting", "seeds", "together"].map((name) => values.get(name));
  // What needs no knowledge is what all is read against: it stays where rows are filtered.
  const isWanted = (row) => (!setting || !row.setting || row.setting === setting) && (!seeds || !row.setting || row.seeds >= Number(seeds));
  sorting.draw([["mean", "asc"]], (table) => {
    const rows = table.rows().nodes();
    table.order.fixed(together ? {} : { pre: [columnOf(table, "setting"), "asc"] });
    table.table().node().classList.toggle("grouped", !together);
    table.search.fixed("filters", (text, data, index) => isWanted(rows[index].dataset));
  });
  let count = 0;
  panels.forEach((panel, at) => {
    panel.hidden = ["backbone", "tuning"].some((name) => values.get(name) && panel.dataset[name] !== values.get(name));
    if (!panel.hidden) count += tables[at].rows({ search: "applied" }).count();
  });
  const there = panels.filter((panel) => !panel.hidden).length;
  status_.textContent = `${count} rows of ${there} ${there === 1 ? "model" : "models"} are shown.`;
}

function restore() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  for (const field of form.querySelectorAll("select")) {
    const value = wanted.get(field.name) ?? "";
    field.value = [...field.options].some((option) => option.value === value) ? value : "";
  }
  form.elements.together.checked = wanted.get("together") === "yes";
  const radios = [...figures.querySelectorAll("input")];
  (radios.find((radio) => radio.value === wanted.get("figure")) ?? radios[0]).checked = true;
  sorting.restore(wanted);
  show();
}

const keep = () => history.replaceState(null, "", `#${state()}`);
const sorting = new Sorting(tables, keep);

if (form) {
  form.hidden = false;
  for (const each of [figures, form]) {
    each.addEventListener("submit", (event) => event.preventDefault());
    each.addEventListener("input", () => { keep(); show(); });
  }
  form.addEventListener("reset", () => setTimeout(() => {
    figures.reset();
    sorting.clear();
    keep();
    show();
  }));
  // A plain anchor leads to a part of the page, and is no state.
  addEventListener("hashchange", () => { if (!document.getElementById(location.hash.slice(1))) restore(); });
  restore();
}

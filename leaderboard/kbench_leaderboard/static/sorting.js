"use strict";
// What a reader sorted tables by, and how the address keeps it. Columns go by their names there:
// one more of them moves none.
const nameOf = (table, column) => table.column(column).header().dataset.column;
const columnOf = (table, name) => table.columns().header().toArray().findIndex((head) => head.dataset.column === name);

class Sorting {
  #by = new Map(); // number of a table -> [name of a column, direction]
  #drawing = false;

  constructor(tables, changed) {
    this.tables = tables;
    tables.forEach((table, at) => table.on("order", () => {
      if (this.#drawing) return;
      const order = table.order();
      const [[column, direction] = []] = order;
      if (order.length === 1) this.#by.set(at, [nameOf(table, column), direction]); else this.#by.delete(at);
      changed();
    }));
  }

  clear() { this.#by.clear(); }

  terms() { return [...this.#by].map(([at, by]) => [`sort${at}`, by.join("-")]); }

  restore(wanted) {
    this.clear();
    this.tables.forEach((table, at) => {
      const [, name, direction] = /^([\w.-]+)-(asc|desc)$/.exec(wanted.get(`sort${at}`) ?? "") ?? [];
      if (columnOf(table, name) >= 0) this.#by.set(at, [name, direction]);
    });
  }

  // Draws every table, sorted as was wished or else by some columns, after it was prepared.
  draw(usual, prepare) {
    this.#drawing = true;
    this.tables.forEach((table, at) => {
      prepare(table, at);
      const wished = this.#by.has(at) ? [this.#by.get(at)] : usual;
      table.order(wished.map(([name, direction]) => [columnOf(table, name), direction])).draw();
    });
    this.#drawing = false;
  }
}

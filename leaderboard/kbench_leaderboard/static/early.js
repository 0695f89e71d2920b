"use strict";
// Long tables are laid out once they have pages, not whole before: a third of the time.
document.documentElement.classList.add("loading");
addEventListener("load", () => document.documentElement.classList.remove("loading"));

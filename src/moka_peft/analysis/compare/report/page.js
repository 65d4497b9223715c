// Sorts a table by the column whose heading is pressed; #sort=TABLE,COLUMN,descending in the address does so on opening.
(() => {
  const compare = (a, b) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    const [x, y] = [Number(a), Number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
  };

  function sort(table, column, descending) {
    const body = table.tBodies[0];
    const key = (row) => row.cells[column].dataset.key;
    const sign = descending ? -1 : 1;
    const rows = [...body.rows].sort((a, b) => {
      const missing = (key(a) === "") - (key(b) === "");
      return missing || sign * compare(key(a), key(b));
    });
    body.append(...rows);
    [...table.tHead.rows[0].cells].forEach((cell, place) => {
      if (place === column) cell.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    });
  }

  for (const table of document.querySelectorAll("table")) {
    [...table.tHead.rows[0].cells].forEach((cell, column) => {
      cell.firstElementChild.addEventListener("click", () => {
        const before = cell.getAttribute("aria-sort");
        const isNumber = !cell.classList.contains("words");
        sort(table, column, before ? before === "ascending" : isNumber);
      });
    });
  }

  function sortAsAddressed() {
    const [, name, column, order] = /^#sort=([^,]+),(\d+)(?:,(\w+))?$/.exec(location.hash) || [];
    const table = name && document.getElementById(decodeURIComponent(name));
    if (table && table.tHead && column < table.tHead.rows[0].cells.length) {
      sort(table, Number(column), order === "descending");
      table.scrollIntoView();
    }
  }

  addEventListener("hashchange", sortAsAddressed);
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => (one.open = true)));
  sortAsAddressed();
})();

"use strict";
(() => {
  const root = document.documentElement;
  const show = (id) => { const found = document.getElementById(id); if (found) found.hidden = false; return found; };

  // Theme: that of the system until the button is pressed.
  const theme = show("theme");
  const dark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const label = () => { theme.textContent = dark() ? "Light theme" : "Dark theme"; };
  theme.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; label(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", label);
  label();

  // Tables: a button in each heading sorts, and the words in the field filter.
  const value = (line, column) => {
    const cell = line.cells[column];
    return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
  };
  const compare = (one, other) => {
    if (typeof one === "number" && typeof other === "number") return one - other;
    if (typeof one !== typeof other) return typeof one === "number" ? -1 : 1;
    return one.localeCompare(other, undefined, { numeric: true });
  };
  const sort = (table, column) => {
    const headings = [...table.tHead.rows[0].cells];
    const up = headings[column].getAttribute("aria-sort") !== "ascending";
    headings.forEach((heading) => heading.removeAttribute("aria-sort"));
    headings[column].setAttribute("aria-sort", up ? "ascending" : "descending");
    const lines = [...table.tBodies[0].rows].map((line) => [value(line, column), line]);
    lines.sort(([one], [other]) => {
      if (typeof one !== typeof other) return compare(one, other); // what was not measured comes last
      return up ? compare(one, other) : compare(other, one);
    });
    table.tBodies[0].append(...lines.map(([, line]) => line));
    arm(table);
  };
  // One cell of a table can be reached with Tab, and the others from it with the arrow keys.
  const arm = (table) => {
    const cells = [...table.querySelectorAll("td[data-tip]")];
    cells.forEach((cell) => { cell.tabIndex = -1; });
    const first = cells.find((cell) => !cell.parentElement.hidden);
    if (first) first.tabIndex = 0;
  };
  document.querySelectorAll("main table").forEach((table) => {
    [...table.tHead.rows[0].cells].forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => sort(table, column));
    });
    arm(table);
    table.addEventListener("keydown", (event) => {
      const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      const cell = event.target.closest("td[data-tip]");
      if (!step || !cell) return;
      const lines = [...table.tBodies[0].rows].filter((line) => !line.hidden);
      const next = lines[lines.indexOf(cell.parentElement) + step[0]]?.cells[cell.cellIndex + step[1]];
      if (!next || next.dataset.tip === undefined) return;
      event.preventDefault();
      cell.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    });
  });
  document.querySelectorAll("input[data-table]").forEach((input) => {
    const table = document.getElementById(input.dataset.table);
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      const lines = [...table.tBodies[0].rows];
      lines.forEach((line) => {
        const text = [...line.cells].map((cell) => cell.textContent).join(" ").toLowerCase();
        line.hidden = !words.every((word) => text.includes(word));
      });
      input.parentElement.querySelector("[role=status]").textContent =
        words.length ? `${lines.filter((line) => !line.hidden).length} of ${lines.length} lines` : "";
      arm(table);
    });
  });

  // Tooltips of cells and of marks in figures.
  const tip = document.getElementById("tip");
  const place = (target) => {
    tip.textContent = target.dataset.tip;
    tip.hidden = false;
    const box = target.getBoundingClientRect(), own = tip.getBoundingClientRect();
    const left = Math.min(Math.max(8, box.left + box.width / 2 - own.width / 2), innerWidth - own.width - 8);
    const top = box.top - own.height - 8 < 4 ? box.bottom + 8 : box.top - own.height - 8;
    tip.style.left = `${left}px`;
    tip.style.top = `${top}px`;
    target.setAttribute("aria-describedby", "tip");
  };
  const hide = (target) => { tip.hidden = true; target?.removeAttribute?.("aria-describedby"); };
  for (const [on, off] of [["pointerover", "pointerout"], ["focusin", "focusout"]]) {
    document.addEventListener(on, (event) => { const found = event.target.closest?.("[data-tip]"); if (found) place(found); });
    document.addEventListener(off, (event) => hide(event.target.closest?.("[data-tip]")));
  }
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });

  // The rows as a file.
  show("save")?.addEventListener("click", () => {
    const lines = JSON.parse(document.getElementById("rows").textContent).map((row) => `${JSON.stringify(row)}\n`);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob(lines, { type: "application/jsonl" }));
    link.download = "rows.jsonl";
    link.click();
    URL.revokeObjectURL(link.href);
  });
})();

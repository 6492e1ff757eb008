
"use strict";
(() => {
  const by = (id) => document.getElementById(id);
  const told = by("told");

  async function copy(text, button) {
    let done = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      done = document.execCommand("copy");
      area.remove();
      button.focus();
    }
    told.textContent = done ? "Copied." : "The browser does not allow copying; select the text instead.";
    button.textContent = done ? "Copied" : button.dataset.name;
    setTimeout(() => { button.textContent = button.dataset.name; }, 2000);
  }

  function copies(button, name, text) {
    button.dataset.name = name;
    button.textContent = name;
    button.addEventListener("click", () => copy(text(), button));
  }

  for (const place of document.querySelectorAll(".command")) {
    const code = place.querySelector("code");
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-label", "Copy the command");
    copies(button, "copy", () => code.textContent);
    place.append(button);
  }
  copies(by("copy-post"), "Copy as Markdown", () => by("post").textContent.trimStart());
  document.querySelector(".tools").hidden = false;

  const every = () => document.querySelectorAll("details");
  const all = by("open-all");
  all.addEventListener("click", () => {
    const open = all.getAttribute("aria-pressed") !== "true";
    for (const one of every()) one.open = open;
    all.setAttribute("aria-pressed", String(open));
    all.textContent = open ? "Close everything" : "Open everything";
  });

  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...every()].filter((one) => !one.open);
    for (const one of opened) one.open = true;
  });
  addEventListener("afterprint", () => {
    for (const one of opened) one.open = false;
    opened = [];
  });

  function reveal() {
    const target = location.hash.length > 1 && by(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    for (let place = target; place; place = place.parentElement) {
      if (place.tagName === "DETAILS") place.open = true;
    }
    target.scrollIntoView();
  }
  addEventListener("hashchange", reveal);
  reveal();

  const table = by("message-table");
  if (table) {
    const rows = [...table.tBodies[0].rows].map((row) => ({
      row,
      text: row.textContent.toLowerCase(),
      name: row.querySelector("th").textContent,
      from: row.querySelector(".device, .server").textContent,
    }));
    const find = by("find"), which = by("which"), from = by("from"), matches = by("matches");
    const filter = () => {
      const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const { row, text, name, from: sender } of rows) {
        const fits = (!which.value || which.value === name) && (!from.value || from.value === sender)
          && words.every((word) => text.includes(word));
        row.hidden = !fits;
        shown += fits;
      }
      matches.textContent = `${shown.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows`;
    };
    for (const one of [find, which, from]) one.addEventListener("input", filter);
    by("filter").hidden = false;
    filter();
  }
})();

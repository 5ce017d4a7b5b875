"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const byId = (id) => document.getElementById(id);
  const announce = (text) => { byId("announce").textContent = text; };
  const makeButton = (label, act, kind = "") => {
    const button = Object.assign(document.createElement("button"), { type: "button", className: kind });
    const told = () => { button.textContent = typeof label === "string" ? label : label(); };
    button.addEventListener("click", () => { act(button); told(); });
    told();
    return button;
  };

  const PRINTED = 130;  // rows of all tables that paper has: about eight sheets

  // ---- theme: the reader's system decides until the button is pressed; storage may be forbidden
  const themes = ["auto", "light", "dark"];
  const remembered = () => { try { return localStorage.getItem("ribench-theme"); } catch { return null; } };
  const applyTheme = (theme) => {
    if (theme === "auto") delete root.dataset.theme; else root.dataset.theme = theme;
    try { localStorage.setItem("ribench-theme", theme); } catch { /* kept for this visit only */ }
  };
  let theme = themes.includes(remembered()) ? remembered() : "auto";
  if (theme !== "auto") root.dataset.theme = theme;
  const addThemeButton = () => {
    const button = makeButton(() => `Theme: ${theme}`, () => {
      theme = themes[(themes.indexOf(theme) + 1) % themes.length];
      applyTheme(theme);
    });
    button.id = "theme";
    byId("tools").append(button);
  };

  // ---- sorting
  const sortBy = (button) => {
    const header = button.closest("th");
    const table = header.closest("table");
    const before = header.getAttribute("aria-sort");
    const direction = before === "none" ? button.dataset.first : before === "ascending" ? "descending" : "ascending";
    for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", direction);
    const sign = direction === "ascending" ? 1 : -1;
    const value = (row) => row.cells[header.cellIndex].dataset.value;
    const apart = (row) => "apart" in row.cells[header.cellIndex].dataset; // over another number of images: last
    const compare = (first, second) => {
      const [a, b] = [value(first), value(second)];
      if (a === "" || b === "") return (a === "") - (b === "");
      if (apart(first) !== apart(second)) return apart(first) - apart(second);
      const difference = Number(a) - Number(b);
      return sign * (Number.isNaN(difference) ? a.localeCompare(b) : difference);
    };
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort(compare));
    announce(`Sorted by ${button.textContent.trim()}, ${direction}`);
    remember({ sort: `${table.closest("details").id} ${header.cellIndex} ${direction}` });
  };
  const sortAsRemembered = () => {
    const [board, column, direction] = (state.get("sort") ?? "").split(" ");
    const header = byId(board)?.querySelector(".board-table")?.tHead.rows[0].cells[Number(column)];
    const button = header?.querySelector("button");
    for (let tries = 0; button && tries < 2 && header.getAttribute("aria-sort") !== direction; tries += 1) sortBy(button);
  };

  // ---- filter and sort live in the address, behind "#?", so that a view can be sent to somebody
  const state = new URLSearchParams(location.hash.startsWith("#?") ? location.hash.slice(2) : "");
  const remember = (values) => {
    for (const [name, value] of Object.entries(values)) if (value) state.set(name, value); else state.delete(name);
    history.replaceState(null, "", state.size ? `#?${state}` : "#");
  };

  // ---- filtering: one filter for tables, plots, panels and sections
  const startFilter = () => {
    const form = byId("filter");
    const [text, method, dataset] = ["text", "method", "dataset"].map((name) => byId(`filter-${name}`));
    const methods = new Map(all("tr[data-method]").map((row) => [row.dataset.model, row.dataset.method]));
    const apply = () => {
      const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
      const kept = new Set([...methods].filter(([name, own]) =>
        words.every((word) => name.toLowerCase().includes(word))
        && (!method.value || own === method.value)
        && (!dataset?.value || name.startsWith(`${dataset.value}/`))).map(([name]) => name));
      for (const element of all("[data-model]")) element.classList.toggle("filtered", !kept.has(element.dataset.model));
      const some = kept.size < methods.size;
      for (const board of all("details.board, details.plots, details.more")) {
        const models = all(board.matches(".plots") ? ".legend [data-model]" : "[data-model]", board);
        const fits = models.some((element) => kept.has(element.dataset.model));
        board.classList.toggle("filtered", models.length > 0 && !fits);
        board.classList.toggle("everything", some);
        if (some && fits && !board.open) { board.open = true; board.dataset.brought = ""; }
        if (!some && "brought" in board.dataset) { board.open = false; delete board.dataset.brought; }
      }
      for (const means of all("details.methods")) means.classList.toggle("filtered", some);
      byId("filter-status").textContent = `${kept.size} of ${methods.size} models`;
      remember({ models: text.value, method: method.value, dataset: dataset?.value });
    };
    form.hidden = false;
    [text.value, method.value] = ["models", "method"].map((name) => state.get(name) ?? "");
    if (dataset) dataset.value = state.get("dataset") ?? "";
    if (text.value || method.value || dataset?.value) apply();
    form.addEventListener("input", apply);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(apply));
  };

  // ---- plots of many models begin with a few; a button, or the filter, brings the others
  const startFew = () => {
    for (const group of all("[data-few]")) {
      const first = new Set(group.dataset.few.split("|"));
      const models = all("[data-model]", group);
      for (const part of models) part.classList.toggle("rest", !first.has(part.dataset.model));
      const count = all(".legend [data-model]", group).length;
      const label = () => group.classList.contains("everything") ? "Best of each method" : `All ${count} models`;
      const item = document.createElement("li");
      item.append(makeButton(label, () => group.classList.toggle("everything"), "entry"));
      group.querySelector(".legend").append(item);
    }
  };

  // ---- choice of columns
  const startViews = () => {
    for (const select of all("[data-views]")) {
      select.closest("label").hidden = false;
      select.addEventListener("change", () => {
        const table = select.closest("details").querySelector(".board-table");
        const headers = [...table.tHead.rows[0].cells];
        const off = headers.map((header) => header.dataset.in !== undefined
          && !header.dataset.in.split("|").includes(select.value));
        for (const row of table.rows) [...row.cells].forEach((cell, at) => cell.classList.toggle("off", off[at]));
      });
    }
  };

  // ---- bringing out one series in all plots
  const pinned = new Set();
  const keyOf = (element) => element.dataset.model ?? element.dataset.series;
  const bringOut = (hovered) => {
    const keys = hovered === null ? pinned : new Set([...pinned, hovered]);
    for (const svg of all(".panel > svg")) {
      const parts = all(".series, .bar, .label", svg);
      const some = keys.size > 0 && parts.some((part) => keys.has(keyOf(part)));
      svg.classList.toggle("dim", some);
      for (const part of parts) part.classList.toggle("on", keys.has(keyOf(part)));
    }
  };
  const startLegends = () => {
    for (const button of all(".entry[data-key]")) {
      const key = button.dataset.key;
      button.addEventListener("pointerenter", () => bringOut(key));
      button.addEventListener("pointerleave", () => bringOut(null));
      button.addEventListener("click", () => {
        if (!pinned.delete(key)) pinned.add(key);
        for (const same of all(".entry[data-key]")) same.setAttribute("aria-pressed", String(pinned.has(same.dataset.key)));
        bringOut(null);
      });
    }
  };

  // ---- values of points: by pointer the nearest one, by arrow keys one after another
  const startPlots = () => {
    const tip = byId("tip");
    let shown = null;
    const hide = () => { shown?.classList.remove("near"); shown = null; tip.hidden = true; };
    const show = (point, aloud) => {
      if (point === shown) return;
      hide();
      shown = point;
      point.classList.add("near");
      tip.textContent = point.dataset.tip;
      tip.hidden = false;
      const [box, own] = [point.getBoundingClientRect(), tip.getBoundingClientRect()];
      const left = Math.min(Math.max(8, box.x + box.width / 2 - own.width / 2), innerWidth - own.width - 8);
      const above = box.y - own.height - 8;
      tip.style.left = `${left}px`;
      tip.style.top = `${above > 4 ? above : box.bottom + 8}px`;
      if (aloud) announce(point.dataset.tip);
    };
    for (const title of all(".point > title")) {
      title.parentElement.dataset.tip = title.textContent;
      title.remove();
    }
    for (const svg of all(".panel > svg")) {
      const series = () => all(".series:not(.filtered)", svg).filter((one) => getComputedStyle(one).display !== "none");
      const points = () => series().flatMap((one) => all(".point", one));
      svg.addEventListener("pointermove", (event) => {
        let [best, nearest] = [28, null];
        for (const point of points()) {
          const box = point.getBoundingClientRect();
          const distance = Math.hypot(box.x + box.width / 2 - event.clientX, box.y + box.height / 2 - event.clientY);
          if (distance < best) [best, nearest] = [distance, point];
        }
        if (nearest) show(nearest, false); else hide();
      });
      svg.addEventListener("pointerleave", hide);
      svg.addEventListener("blur", hide);
      svg.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 1, ArrowUp: -1 }[event.key];
        if (event.key === "Escape") hide();
        if (!step) return;
        event.preventDefault();
        const own = shown?.closest("svg") === svg ? shown : null;
        const groups = series().map((one) => all(".point", one));
        if (!groups.length) return;
        const at = groups.findIndex((group) => group.includes(own));
        if (at < 0) { show(groups[0][0], true); return; }
        const place = groups[at].indexOf(own);
        const single = groups.every((group) => group.length === 1);
        const next = single || event.key === "ArrowUp" || event.key === "ArrowDown"
          ? groups[(at + step + groups.length) % groups.length]
          : groups[at];
        const wanted = next === groups[at] ? (place + step + next.length) % next.length : Math.min(place, next.length - 1);
        show(next[wanted], true);
      });
    }
    addEventListener("scroll", hide, { passive: true, capture: true });
  };

  // ---- folded parts open for links into them and for paper
  const openTarget = () => {
    const target = location.hash.length > 1 && !location.hash.startsWith("#?") ? byId(decodeURIComponent(location.hash.slice(1))) : null;
    for (let part = target; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
    target?.scrollIntoView();
  };
  const startFolds = () => {
    const folded = [];
    addEventListener("hashchange", openTarget);
    addEventListener("beforeprint", () => {
      let rows = all("details.board[open] tbody tr").length;
      for (const part of all("details.board:not([open])")) {
        rows += all("tbody tr", part).length;
        if (rows > PRINTED) break;
        part.open = true;
        folded.push(part);
      }
    });
    addEventListener("afterprint", () => { for (const part of folded.splice(0)) part.open = false; });
    if (location.hash) openTarget();
  };

  // ---- the numbers of a table as a file, made here: shares as fractions, intervals as they are shown
  const asCsv = (table) => {
    const quoted = (text) => {
      const safe = /^[=+@\t\r-]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
      return /[",\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
    };
    const words = (cell) => cell.dataset.value ?? cell.textContent.trim().replace(/\s+/g, " ");
    const interval = (cell) => {
      const shown = cell.querySelector(".ci")?.textContent.slice(1, -1).split(", ") ?? ["", ""];
      const scale = cell.style.getPropertyValue("--share") ? 100 : 1;
      return shown.map((end) => end && String(Number((Number(end.replaceAll(",", "")) / scale).toPrecision(6))));
    };
    const [head, ...body] = table.rows;
    const ends = [...head.cells].map((_, at) => body.some((row) => row.cells[at].querySelector(".ci")));
    const names = [...head.cells].flatMap((cell, at) => {
      const name = table.matches(".board-table") ? words(cell).replace(/ %$/, "") : words(cell);
      return ends[at] ? [name, `${name} ci_low`, `${name} ci_high`] : [name];
    });
    const lines = body.map((row) => [...row.cells].flatMap((cell, at) =>
      ends[at] ? [words(cell), ...interval(cell)] : [words(cell)]));
    return [names, ...lines].map((line) => line.map(quoted).join(",")).join("\n") + "\n";
  };
  const startDownloads = () => {
    for (const table of all(".board table, .panel table, .run .numbers table")) {
      const button = makeButton("Download CSV", () => {
        const link = document.createElement("a");
        link.href = URL.createObjectURL(new Blob([asCsv(table)], { type: "text/csv" }));
        link.download = `${(table.caption?.textContent ?? "table").split(/[,:;(]/)[0].trim().replace(/[^\w-]+/g, "_")}.csv`;
        link.click();
        setTimeout(() => URL.revokeObjectURL(link.href), 10000);
      }, "csv");
      const bar = table.matches(".board-table") && table.closest(".board").querySelector(".bar-of");
      if (bar) bar.append(button); else table.closest(".scroll").before(button);
    }
  };

  // ---- copying commands
  const startCopying = () => {
    if (!navigator.clipboard) return;
    for (const box of all(".command")) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = "Copy";
      button.addEventListener("click", async () => {
        try {
          await navigator.clipboard.writeText(box.querySelector("code").textContent);
          button.textContent = "Copied";
        } catch {
          getSelection().selectAllChildren(box.querySelector("code"));
          button.textContent = "Selected";
        }
        setTimeout(() => { button.textContent = "Copy"; }, 2000);
      });
      box.append(button);
    }
  };

  // ---- packed parts: put back before anything else looks at the page
  const unpack = async (block) => {
    const bytes = Uint8Array.from(atob(block.textContent.trim()), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    block.insertAdjacentHTML("beforebegin", await new Response(stream).text());
    block.remove();
  };
  const tooOld = (block) => {
    const note = document.createElement("p");
    note.className = "note caution";
    note.textContent = "This browser cannot unpack this part of the page; a newer one can, or write the page with bench report --plain.";
    block.replaceWith(note);
  };
  const unpackAll = () => Promise.all(all("script.packed").map((block) => unpack(block).catch(() => tooOld(block))));

  document.addEventListener("DOMContentLoaded", async () => {
    addThemeButton();
    await unpackAll();
    for (const button of all("thead button")) button.addEventListener("click", () => sortBy(button));
    startFew();
    startFilter();
    sortAsRemembered();
    startViews();
    startLegends();
    startPlots();
    startFolds();
    startCopying();
    startDownloads();
    root.dataset.ready = "";
  });
})();

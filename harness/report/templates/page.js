// Draws charts as they come into view; keeps what the reader picked (designs, datasets, reference, scale) in
// one place and shows it everywhere; hands out the data. Colours are CSS variables: dark and print redraw nothing.
(() => {
  const parse = (id) => JSON.parse(document.getElementById(id).textContent);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const objects = ({ names, rows }) =>
    rows.map((row) => Object.fromEntries(names.map((name, n) => [name, row[n]])));
  const { templates, charts } = parse("charts");
  const config = parse("theme");
  const unpacked = (value) => {
    if (value === null || typeof value !== "object") return value;
    if (Array.isArray(value)) return value.map(unpacked);
    if (Array.isArray(value.rows) && Array.isArray(value.names)) return unpacked(objects(value));
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, unpacked(item)]));
  };
  const data = unpacked(parse("data"));
  const names = parse("names");
  const contestants = new Map(Object.entries(names.contestants));
  // A history has no runs of its own, whose reference could be switched.
  const ratios = names.runs.map(({ reference, variants }, n) => ({
    run: data.runs[n].name,
    reference,
    arms: variants,
    datasets: data.runs[n].datasets,
    metrics: data.runs[n].ratios,
  }));
  // As one flat row each, for spreadsheets.
  const flat = (run, arm, { id, record, variant, dataset, point, replicate, status, message, log, ...rest }) => {
    const { times, passes, samples, throttled_passes, check, quantisation_error, kernel, ...last } = rest;
    const { design, toolchain } = variant;
    const of = (value, ...keys) => Object.fromEntries(keys.map((key) => [key, value?.[key] ?? null]));
    return {
      run, id, record, arm, design, toolchain, dataset, point, replicate, status, message,
      ...of(times, ...Object.keys(data.method.metrics)), passes, samples, throttled_passes,
      check_passed: check?.passed ?? null, check_max_error: check?.max_error ?? null, quantisation_error,
      ...of(kernel, "registers", "spill_bytes", "shared_bytes", "occupancy"),
      kernel: kernel?.name ?? "", compiler: kernel?.compiler ?? "", arch: kernel?.arch ?? "",
      source_hash: kernel?.source_hash ?? "", ...last,
    };
  };
  const cells = names.runs.flatMap(({ variants }, n) => {
    const run = data.runs[n];
    const labels = new Map(run.variants.map((one, v) => [JSON.stringify(one), variants[v]]));
    return run.cells.map((cell) => flat(run.name, labels.get(JSON.stringify(cell.variant)), cell));
  });
  const points = (data.settings ?? []).flatMap((setting, n) => {
    const moments = new Map(setting.moments.map(({ run, ...rest }) => [run, rest]));
    return setting.points.map(({ run, variant, dataset, time, since_first: since, doubt }) => ({
      setting: n + 1, run, ...moments.get(run), arm: variant, dataset, metric: setting.metric,
      us: time.value, us_low: time.low, us_high: time.high, replicates: time.replicates,
      since_first: since.value, since_first_low: since.low, since_first_high: since.high, doubt,
    }));
  });
  const picked = { arm: new Set(), dataset: new Set() };
  const reference = ratios.map((run) => run.reference);
  let logarithmic = false;

  // ---- Speedups: figures for every reference were computed beforehand, intervals too; here they are looked up.
  const figure = (run, metric, arm, dataset) => {
    const { metrics, arms } = ratios[run];
    return metrics[metric]?.[arms.indexOf(reference[run])][arm][dataset] ?? null;
  };
  const sensible = (low, high) => low > 0 && high <= 4 * low;  // as in units.sensible
  const span = (low, high) => {
    if (!sensible(low, high)) return "processes disagree";  // as in units.span
    const hidden = low.toFixed(2) === high.toFixed(2);
    const seemsOne = (low > 1 && low.toFixed(2) === "1.00") || (high < 1 && high.toFixed(2) === "1.00");
    const digits = hidden || seemsOne ? 3 : 2;
    return `${low.toFixed(digits)}–${high.toFixed(digits)}`;
  };
  const rereference = () => {
    for (const place of all("[data-ratio]")) {
      if (!place.dataset.ratio) continue;
      const [run, metric, arm, dataset] = place.dataset.ratio.split("/").map((v) => (/^\d+$/.test(v) ? +v : v));
      const found = figure(run, metric, arm, dataset);
      const own = ratios[run].arms[arm] === reference[run];
      const value = place.querySelector(".v");
      const interval = place.querySelector(".i");
      value.textContent = found === null ? "–" : own && interval ? "1" : `${found[0].toFixed(2)}×`;
      if (interval) interval.textContent = found === null ? "" : own ? "reference" : span(found[1], found[2]);
      const wide = found !== null && !sensible(found[1], found[2]);
      place.classList.toggle("wide", interval !== null && wide);
      place.classList.toggle("faster", interval !== null && found !== null && !wide && found[1] > 1);
      place.classList.toggle("slower", interval !== null && found !== null && !wide && found[2] < 1);
    }
    for (const place of all("[data-reference]")) {
      const run = ratios.findIndex((one) => one.run === place.dataset.reference);
      const { variants, called } = names.runs[run];
      place.textContent = "called" in place.dataset ? called[variants.indexOf(reference[run])] : reference[run];
    }
    // Only the page of one run has cards: what one says of the reference is said by its speedup.
    for (const place of all("[data-unless]")) place.hidden = place.dataset.unless === reference[0];
  };
  const speedups = ({ run: name, metric }) => {
    const run = ratios.findIndex((one) => one.run === name);
    return ratios[run].arms.flatMap((arm, a) =>
      ratios[run].datasets.flatMap((dataset, d) => {
        const found = figure(run, metric, a, d);
        return found ? [{ arm, dataset, value: found[0], low: found[1], high: found[2] }] : [];
      }));
  };

  // ---- Charts
  const rows = (id) => {
    const { usermeta = {}, data: own } = charts[id];
    return usermeta.ratios ? speedups(usermeta.ratios) : own?.names ? objects(own) : null;
  };
  const onLogarithm = (part, channel) => {
    const { encoding } = part;
    if (encoding?.[channel]?.field) {
      const { zero, ...scale } = encoding[channel].scale ?? {};
      encoding[channel].scale = { ...scale, type: "log" };
    }
    for (const layer of part.layer ?? []) onLogarithm(layer, channel);
  };
  // Vega keeps what it groups by in plain objects, which cannot have this one key.
  const tame = (row) => Object.fromEntries(
    Object.entries(row).map(([name, value]) => [name, value === "__proto__" ? "__proto__ " : value]));
  const specification = (id) => {
    const { template, usermeta = {}, height, data: own } = charts[id];
    const known = rows(id)?.filter(fits);
    const made = { ...structuredClone(templates[template]), usermeta, height };
    if (known) made.data = { values: known.map(tame) };
    else if (own) made.data = own;
    // One with a row per design grows and shrinks with them.
    const { step, field } = usermeta;
    if (step) made.height = step * new Set(known.map((row) => row[field])).size;
    made.params = made.params.map((param) => (param.name === "log" ? { ...param, value: logarithmic } : param));
    if (logarithmic && usermeta.logarithmic) onLogarithm(made, usermeta.logarithmic);
    return made;
  };
  const fits = (row) => wanted("arm", toArm.get(row.arm) ?? row.arm) && wanted("dataset", row.dataset);
  // One chart after another: those in or near the view first, the others when nothing else is to do, so that printing
  // finds them drawn. One that becomes stale while it is drawn is drawn again.
  const places = all("[data-chart]");
  const stale = new Set(places);  // not drawn yet, or not as the reader picked last
  const near = new Set();
  const views = new Map();
  const MANY = 80;  // of very many charts only the first are drawn before they come into view
  let everything = false;  // for printing: all of them, and at once
  let working = null;  // who draws, as a promise
  const draw = async (place) => {
    stale.delete(place);
    place.style.minHeight = `${place.offsetHeight}px`;  // nothing below it jumps
    views.get(place)?.finalize();
    views.delete(place);
    try {
      const made = specification(place.dataset.chart);
      const { view } = await vegaEmbed(place, made, { config, renderer: "svg", actions: false });
      view.addEventListener("click", (_, item) => {
        const { arm, dataset } = item?.datum ?? {};
        if (arm !== undefined || dataset !== undefined) pick(arm, dataset);
      });
      views.set(place, view);
      place.dataset.drawn = "yes";
    } catch (error) {
      console.error(`${place.dataset.chart} cannot be drawn:`, error);  // the others can
    }
    place.style.minHeight = "";
    if (!place.offsetParent) stale.add(place);  // hidden meanwhile: it was drawn without a width
  };
  const idle = () => new Promise((done) =>
    window.requestIdleCallback ? requestIdleCallback(done, { timeout: 200 }) : setTimeout(done, 50));
  // What is hidden or folded away has no width yet, and stays stale until it is seen.
  const next = () => {
    const canBe = (place) => stale.has(place) && place.offsetParent;
    return [...near].find(canBe) ?? (everything ? places : places.slice(0, MANY)).find(canBe);
  };
  const work = async () => {
    document.documentElement.dataset.drawn = "no";
    await null;
    while (next()) {
      if (!near.has(next()) && !everything) await idle();
      const place = next();  // by now perhaps another
      if (place) await draw(place);
    }
    working = null;  // nothing may come between this and the last look for more
    document.documentElement.dataset.drawn = "yes";
  };
  const drawStale = () => (working ??= work());
  // Anew, from the rows: where Vega takes rows out and puts them back it loses their order.
  const redraw = (chosen = () => true) => {
    for (const place of places) if (chosen(charts[place.dataset.chart].usermeta ?? {})) stale.add(place);
    drawStale();
  };
  const drawAll = async () => {
    everything = true;
    while (next()) await drawStale();
    everything = false;
  };
  // Vega leaves out the names along its axes; the label may be cut short, its datum is not.
  for (const place of places) {
    place.onclick = ({ target }) => {
      if (target.closest(".role-axis-label")) pickByName(target.__data__?.datum?.value.trim());
    };
  }
  const seen = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) near[isIntersecting ? "add" : "delete"](target);
      if ([...near].some((place) => stale.has(place))) drawStale();
    },
    { rootMargin: "400px" },
  );

  // ---- What is picked. Nothing picked means everything.
  const toggle = (set, value) => (set.has(value) ? set.delete(value) : set.add(value));
  const toArm = new Map([...contestants].flatMap(([arm, known]) => known.map((name) => [name, arm])));
  const pick = (arm, dataset) => {
    if (arm !== undefined && arm !== null) toggle(picked.arm, toArm.get(arm) ?? arm);
    if (dataset !== undefined && dataset !== null) toggle(picked.dataset, dataset);
    show();
  };
  const pickByName = (name) => {
    if (toArm.has(name)) pick(name);
    else if (datasets.has(name)) pick(undefined, name);
  };
  const wanted = (kind, value) =>
    value === undefined || value === null || !picked[kind].size || picked[kind].has(value);
  // A table's rows and columns are told by their headings.
  const headings = new Map();
  const heading = (node) => (node.querySelector("a, .v") ?? node.firstChild)?.textContent.trim() ?? "";
  const datasets = new Set(names.datasets);
  const read = (table) => {
    if (!headings.has(table)) {
      const columns = all("thead th", table).map((th) => (datasets.has(heading(th)) ? heading(th) : null));
      const body = all("tbody tr", table).map((tr) => {
        const cell = tr.id.startsWith("cell-") ? cells[tr.id.slice(5)] : null;
        const name = heading(tr.cells[0]);
        const isDataset = !toArm.has(name) && datasets.has(name);
        return {
          tr,
          arm: cell ? cell.arm : toArm.get(name) ?? null,
          dataset: cell ? cell.dataset : isDataset ? name : null,
        };
      });
      headings.set(table, { columns, body });
    }
    return headings.get(table);
  };
  const filterTable = (table) => {
    const { columns, body } = read(table);
    for (const { tr, arm, dataset } of body) tr.hidden = !(wanted("arm", arm) && wanted("dataset", dataset));
    columns.forEach((dataset, n) => {
      if (dataset === null) return;
      for (const tr of table.rows) if (tr.cells[n]) tr.cells[n].hidden = !wanted("dataset", dataset);
    });
    const named = body.filter(({ arm, dataset }) => arm !== null || dataset !== null);
    table.closest(".scroll").hidden = named.length > 0 && named.every(({ tr }) => tr.hidden);
  };
  const filterChart = (place) => {
    const found = rows(place.dataset.chart);
    const figure = place.closest("figure");
    const designs = found?.filter((row) => row.arm != null) ?? [];
    const none = found !== null && !(designs.length ? designs : found).some(fits);
    figure.hidden = none || !wanted("dataset", figure.dataset.dataset);
  };
  let shownBefore = false;
  const show = () => {
    const any = picked.arm.size + picked.dataset.size > 0;
    if (!any && !shownBefore) return;
    shownBefore = true;
    for (const button of all("[data-pick]")) {
      if (button.dataset.pick === "all") continue;
      button.setAttribute("aria-pressed", picked[button.dataset.pick].has(button.value));
    }
    for (const node of all("[data-arm], [data-dataset]")) {
      if (node.tagName !== "FIGURE") {
        node.hidden = !(wanted("arm", node.dataset.arm) && wanted("dataset", node.dataset.dataset));
      }
    }
    all("main table").forEach(filterTable);
    places.forEach(filterChart);
    for (const block of all(".block")) {
      const parts = all(".scroll, figure", block);
      block.hidden = parts.length > 0 && parts.every((part) => part.hidden);
    }
    const bar = document.getElementById("picked");
    bar.hidden = !any;
    bar.firstElementChild.textContent = `Only ${[...picked.arm, ...picked.dataset].join(", ")}.`;
    remember();
    redraw();
  };
  for (const button of all("[data-pick]")) {
    button.onclick = () => {
      if (button.dataset.pick === "all") { picked.arm.clear(); picked.dataset.clear(); show(); }
      else if (button.dataset.pick === "arm") pick(button.value);
      else pick(undefined, button.value);
    };
  }
  const switches = {
    reference: (node) => {
      reference[node.dataset.run] = node.value;
      rereference();
      redraw((usermeta) => usermeta.ratios);
    },
    scale: (node) => { logarithmic = node.value === "log"; redraw((usermeta) => usermeta.logarithmic); },
    theme: (node) => { document.documentElement.dataset.theme = node.value; },
  };
  for (const node of all("[data-switch]")) {
    node.onchange = () => { switches[node.dataset.switch](node); remember(); };
  }

  // ---- What is picked stands in the address, so that it can be sent: #?arm=…&dataset=…&reference=0:…
  const remember = () => {
    const said = new URLSearchParams();
    for (const kind of ["arm", "dataset"]) for (const name of picked[kind]) said.append(kind, name);
    reference.forEach((name, run) => {
      if (name !== ratios[run].reference) said.append("reference", `${run}:${name}`);
    });
    if (logarithmic) said.append("scale", "log");
    const now = String(said);
    if (now || location.hash.startsWith("#?")) history.replaceState(null, "", now ? `#?${now}` : "#");
  };
  const recall = () => {
    if (!location.hash.startsWith("#?")) return;
    const said = new URLSearchParams(location.hash.slice(2));
    for (const arm of said.getAll("arm")) if (contestants.has(arm)) picked.arm.add(arm);
    for (const name of said.getAll("dataset")) if (datasets.has(name)) picked.dataset.add(name);
    for (const one of said.getAll("reference")) {
      const [, run, name] = /^(\d+):(.*)$/s.exec(one) ?? [];
      const node = document.querySelector(`[data-switch=reference][data-run="${run}"]`);
      if (node && [...node.options].some((option) => option.value === name)) {
        node.value = name;
        switches.reference(node);
      }
    }
    const scale = document.querySelector("[data-switch=scale]");
    if (said.get("scale") === "log") { scale.value = "log"; switches.scale(scale); }
    show();
  };

  // ---- Taking data away
  const save = (name, type, text) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };
  // A spreadsheet takes a leading = + - @ for a formula; text from a log or a trace's name must not become one.
  const field = (value) => {
    if (value === null || typeof value === "number" || typeof value === "boolean") return String(value ?? "");
    const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const csv = (lines) => lines.map((line) => line.map(field).join(",") + "\r\n").join("");
  document.getElementById("save-json").onclick = () =>
    save(names.files.json, "application/json", JSON.stringify(data, null, 1));
  document.getElementById("save-csv").onclick = () => {
    const lines = cells.length ? cells : points;
    save(names.files.csv, "text/csv", csv([Object.keys(lines[0]), ...lines.map(Object.values)]));
  };
  for (const place of all("[data-numbers]")) {
    place.ontoggle = () => {
      if (place.querySelector("table")) return;
      const { names: columns, rows: lines } = charts[place.dataset.numbers].data;
      const table = document.createElement("table");
      const line = (tag, values, section) => {
        const tr = section.insertRow();
        for (const value of values) tr.appendChild(document.createElement(tag)).textContent = value ?? "";
      };
      line("th", columns, table.createTHead());
      for (const values of lines) line("td", values, table.tBodies[0] ?? table.createTBody());
      const scroll = document.createElement("div");
      scroll.className = "scroll";
      scroll.tabIndex = 0;
      scroll.appendChild(table);
      place.appendChild(scroll);
    };
  }

  // ---- A figure's link leads to its record, which is folded away at first; paper shows everything.
  const open = () => {
    const row = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let node = row; node; node = node.parentElement) if (node.tagName === "DETAILS") node.open = true;
    if (row) row.scrollIntoView({ block: row.tagName === "TR" ? "center" : "start" });
  };
  addEventListener("hashchange", open);
  const opened = [];
  const unfold = () => {
    for (const one of all("details:not([open], [data-numbers])")) { one.open = true; opened.push(one); }
  };
  addEventListener("beforeprint", unfold);
  addEventListener("afterprint", () => opened.splice(0).forEach((one) => { one.open = false; }));
  document.getElementById("print").onclick = async () => { unfold(); await drawAll(); print(); };

  // ---- Begin: what is in view first
  for (const place of places) seen.observe(place);
  document.documentElement.dataset.ready = "yes";
  open();
  recall();
  drawStale();
})();

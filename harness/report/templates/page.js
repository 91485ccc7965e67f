// Draws the charts, and hands out the data. Colours are CSS variables: nothing is drawn anew for dark or print.
(async () => {
  const parse = (id) => JSON.parse(document.getElementById(id).textContent);
  const config = parse("chart-theme");
  const specs = parse("chart-specs");
  const data = parse("data");

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
  const csv = (rows) => {
    const names = Object.keys(rows[0] ?? {});
    return [names, ...rows.map((row) => names.map((name) => row[name]))]
      .map((line) => line.map(field).join(",") + "\r\n")
      .join("");
  };
  document.getElementById("save-json").onclick = () =>
    save("report.json", "application/json", JSON.stringify(data, null, 1));
  document.getElementById("save-csv").onclick = () => save("cells.csv", "text/csv", csv(data.cells));

  // A figure's link leads to its record in the appendix, which is folded at first.
  const open = () => {
    const row = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let node = row; node; node = node.parentElement) if (node.tagName === "DETAILS") node.open = true;
    if (row) row.scrollIntoView({ block: "center" });
  };
  addEventListener("hashchange", open);
  const folded = () => [...document.querySelectorAll("details:not([open])")];
  let opened = [];
  addEventListener("beforeprint", () => { opened = folded(); opened.forEach((one) => { one.open = true; }); });
  addEventListener("afterprint", () => opened.forEach((one) => { one.open = false; }));

  for (const place of document.querySelectorAll("[data-chart]")) {
    await vegaEmbed(place, specs[place.dataset.chart], { config, renderer: "svg", actions: false });
    place.dataset.drawn = "yes";
  }
  document.documentElement.dataset.ready = "yes";
  open();
})();

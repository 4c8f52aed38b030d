// Draws the charts of a report from the data in the page, and redraws them as runs, levels and metrics are chosen.
// All texts of the data reach the page as text (textContent, canvas), never as HTML.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const noneCompleted = !data.runs.some((run) => run.completed);
  const counts = (run) => run.completed || noneCompleted;  // towards means
  const usual = (run) => counts(run) || run.partial;
  const shown = data.runs.map(usual);
  const charts = {};
  const hovers = window.matchMedia("(hover: hover)").matches;  // else a tap only shows the numbers
  const element = (id) => document.getElementById(id);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const levelColour = (level) => colour(`--level-${level % 7}`);
  const dashes = (level) => [[], [6, 3], [2, 2], [8, 3, 2, 3]][Math.floor(level / 7) % 4];
  const faded = (hex, share) => hex + Math.round(255 * share).toString(16).padStart(2, "0");

  const isShare = (name) => /error$|share/.test(name);  // not to_error/epochs
  function formatted(name, value) {
    if (isShare(name)) return `${(100 * value).toFixed(2)} %`;
    if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString("en");
    return String(Number(value.toPrecision(4)));
  }
  // Ticks are round numbers: no more digits than they need.
  const tick = (name) => (value) => (isShare(name) ? `${Number((100 * value).toPrecision(4))} %` : formatted(name, value));

  function spread(values) {
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
    return { n: values.length, mean, deviation: values.length > 1 ? Math.sqrt(squares / (values.length - 1)) : 0 };
  }

  const counted = (level) => indices(level).filter((index) => counts(data.runs[index]));
  const partial = (level) => indices(level).filter((index) => !counts(data.runs[index]) && data.runs[index].epochs.length);
  const indices = (level) => data.runs.map((_, index) => index).filter((index) => data.runs[index].level === level && shown[index]);

  function scale(title, extra) {
    return {
      title: { display: Boolean(title), text: title, color: colour("--ink") },
      ticks: { color: colour("--faint"), ...extra.ticks },
      grid: { color: colour("--line") },
      ...Object.fromEntries(Object.entries(extra).filter(([key]) => key !== "ticks")),
    };
  }

  function draw(id, config) {
    charts[id]?.destroy();
    config.options = { animation: false, maintainAspectRatio: false, responsive: true, ...config.options };
    config.options.plugins = { ...config.options.plugins, legend: { display: false } };
    charts[id] = new Chart(element(id), config);
  }

  const short = (text) => {
    const room = window.innerWidth < 640 ? 14 : 32;
    return text.length > room ? `${text.slice(0, room - 1)}…` : text;
  };

  function drawDots() {
    if (!element("dots")) return;
    const metric = element("metric").value;
    const logarithmic = element("logarithmic-dots").checked;
    const datasets = [];
    data.levels.forEach((_, level) => {
      const present = counted(level).filter((index) => data.runs[index].metrics[metric] != null);
      if (!present.length) return;
      const values = present.map((index) => data.runs[index].metrics[metric]);
      const { mean, deviation } = spread(values);
      const strong = levelColour(level);
      const place = (number) => level + (present.length > 1 ? 0.25 * (number / (present.length - 1) - 0.5) : 0);
      datasets.push({
        kind: "run", runs: present, data: values.map((x, number) => ({ x, y: place(number) })),
        backgroundColor: faded(strong, 0.55), borderColor: strong, radius: 5, hoverRadius: 7, hitRadius: 6,
      });
      const bar = (from, to, width) => ({
        kind: "mean", data: [from, to], showLine: true, borderColor: strong, borderWidth: width, pointRadius: 0, pointHitRadius: 0,
      });
      const low = logarithmic && mean <= deviation ? Math.min(...values) : mean - deviation;  // no logarithm below 0
      datasets.push(bar({ x: low, y: level }, { x: mean + deviation, y: level }, 1.5));
      datasets.push(bar({ x: mean, y: level - 0.28 }, { x: mean, y: level + 0.28 }, 3));
    });
    element("dots-box").style.height = `${90 + 52 * data.levels.length}px`;
    draw("dots", {
      type: "scatter",
      data: { datasets },
      options: {
        scales: {
          x: scale(metric, { type: logarithmic ? "logarithmic" : "linear", ticks: { callback: tick(metric), maxTicksLimit: window.innerWidth < 640 ? 5 : 9 } }),
          y: scale("", {
            min: -0.5, max: data.levels.length - 0.5, reverse: true,
            afterBuildTicks: (axis) => { axis.ticks = data.levels.map((_, value) => ({ value })); },
            ticks: { color: colour("--ink"), autoSkip: false, callback: (value) => short(data.levels[value] ?? "") },
          }),
        },
        plugins: {
          tooltip: {
            filter: (item) => item.dataset.kind === "run",
            callbacks: {
              label: (item) => {
                const run = data.runs[item.dataset.runs[item.dataIndex]];
                return [data.levels[run.level], `${formatted(metric, item.parsed.x)}${run.seed == null ? "" : `, seed ${run.seed}`}`];
              },
            },
          },
        },
        onClick: (_, items, chart) => {
          const hit = items.find((item) => chart.data.datasets[item.datasetIndex].kind === "run");
          if (hit && hovers) window.location.href = data.runs[chart.data.datasets[hit.datasetIndex].runs[hit.index]].href;
        },
      },
    });
  }

  function drawCurves() {
    if (!element("curves")) return;
    const name = element("curve").value;
    const logarithmic = element("logarithmic").checked;
    const epochs = [...new Set(data.runs.flatMap((run) => run.epochs.filter((_, row) => run.curves[name]?.[row] != null)))].sort((a, b) => a - b);
    const at = data.runs.map((run) => new Map(run.epochs.map((epoch, row) => [epoch, run.curves[name]?.[row]])));
    const line = (values, more) => ({
      data: epochs.map((epoch, row) => ({ x: epoch, y: values[row] })), pointRadius: 0, pointHitRadius: 0, borderWidth: 2,
      spanGaps: true, ...more,
    });
    const datasets = [];
    data.levels.forEach((level, number) => {
      const present = counted(number);
      const strong = levelColour(number);
      partial(number).forEach((index) => datasets.push(line(epochs.map((epoch) => at[index].get(epoch) ?? null),
        { kind: "partial", label: level, borderWidth: 1.5, borderColor: strong, borderDash: [1, 3], order: 2,
          pointRadius: data.runs[index].epochs.length === 1 ? 3 : 0 })));
      if (!present.length) return;
      const stats = epochs.map((epoch) => {
        const values = present.map((index) => at[index].get(epoch)).filter((value) => value != null);
        return values.length ? spread(values) : null;
      });
      const edge = (sign) => stats.map((item) => {
        const value = item && item.n > 1 ? item.mean + sign * item.deviation : null;
        return logarithmic && value <= 0 ? null : value;
      });
      const silent = { kind: "band", borderWidth: 0, order: 3 };
      if (element("each").checked) {
        present.forEach((index) => datasets.push(line(epochs.map((epoch) => at[index].get(epoch) ?? null),
          { kind: "run", borderWidth: 1, borderColor: faded(strong, 0.6), borderDash: dashes(number), order: 2 })));
      } else {
        datasets.push(line(edge(-1), silent));
        datasets.push(line(edge(1), { ...silent, fill: "-1", backgroundColor: faded(strong, 0.18) }));
      }
      datasets.push(line(stats.map((item) => item && item.mean), {
        kind: "mean", label: level, stats, borderColor: strong, backgroundColor: strong, borderDash: dashes(number), order: 1,
        pointRadius: epochs.length === 1 ? 4 : 0,
      }));
    });
    if (name in data.marks) {
      datasets.push(line(epochs.map(() => data.marks[name]),
        { kind: "mark", borderColor: colour("--faint"), borderWidth: 1, borderDash: [4, 4], order: 4 }));
    }
    draw("curves", {
      type: "line",
      data: { datasets },
      options: {
        interaction: { mode: "index", intersect: false },
        scales: {
          x: scale("epoch", {
            type: "linear", min: 1, ticks: { precision: 0 },
            afterBuildTicks: (axis) => { axis.ticks = axis.ticks.filter(({ value }) => value !== 1 || epochs.length < 8); },
          }),
          y: scale(name, { type: logarithmic ? "logarithmic" : "linear", ticks: { callback: tick(name) } }),
        },
        plugins: {
          tooltip: {
            filter: (item) => item.dataset.kind === "mean",
            callbacks: {
              title: (items) => (items.length ? `epoch ${items[0].parsed.x}` : ""),
              label: (item) => {
                const { n, deviation } = item.dataset.stats[item.dataIndex];
                return `${item.dataset.label}: ${formatted(name, item.parsed.y)}${n > 1 ? ` ± ${formatted(name, deviation)}` : ""} (n=${n})`;
              },
            },
          },
        },
      },
    });
  }

  function drawLegend() {
    const legend = element("legend");
    if (!legend) return;
    const focused = [...legend.children].indexOf(document.activeElement);
    legend.replaceChildren(...data.levels.map((name, level) => {
      const button = document.createElement("button");
      const mark = document.createElement("i");
      const colour = levelColour(level);
      const [dash, gap] = dashes(level);
      mark.style.background = dash
        ? `repeating-linear-gradient(90deg, ${colour} 0 ${dash}px, transparent ${dash}px ${dash + gap}px)` : colour;
      button.append(mark, name);
      button.setAttribute("aria-pressed", String(indices(level).length > 0));
      button.addEventListener("click", () => {
        const on = indices(level).length === 0;
        data.runs.forEach((run, index) => { if (run.level === level) shown[index] = on && usual(run); });
        redraw();
      });
      button.disabled = !data.runs.some((run, index) => run.level === level && (usual(run) || shown[index]));
      return button;
    }));
    legend.children[focused]?.focus();  // the keyboard's place is on the new button
  }

  function redraw() {
    document.querySelectorAll("input[data-run]").forEach((box) => { box.checked = shown[box.dataset.run]; });
    drawLegend();
    drawDots();
    drawCurves();
  }

  document.querySelectorAll("input[data-run]").forEach((box) => {
    box.addEventListener("change", () => { shown[box.dataset.run] = box.checked; redraw(); });
  });
  element("metric")?.addEventListener("change", (event) => {
    document.querySelectorAll("[data-metric]").forEach((table) => { table.hidden = table.dataset.metric !== event.target.value; });
    drawDots();
  });
  element("logarithmic-dots")?.addEventListener("change", drawDots);
  ["curve", "each", "logarithmic"].forEach((id) => element(id)?.addEventListener("change", drawCurves));
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  redraw();
  window.alexnetLab = { charts, shown };  // for those who look at the page with a console
})();

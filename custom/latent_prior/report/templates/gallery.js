const control = (name) => document.getElementById(name);
const grid = control("grid");
const cells = [...grid.children];
const names = ["prompt", "variant", "seed", "result", "sort", "direction"];

function isShown({ dataset, classList }) {
  const missed = classList.contains("missed");
  return dataset.prompt.toLowerCase().includes(control("prompt").value.toLowerCase())
    && ["variant", "seed"].every((name) => ["", dataset[name]].includes(control(name).value))
    && (control("result").value === "" || missed === (control("result").value === "missed"));
}

// cells without the figure come last, in either direction
function compare(a, b) {
  const key = control("sort").value, direction = Number(control("direction").value);
  if (key.startsWith("figure:")) {
    const [x, y] = [a, b].map((cell) => JSON.parse(cell.dataset.numbers)[key.slice(7)]);
    return x === undefined || y === undefined ? (x === undefined) - (y === undefined) : direction * (x - y);
  }
  return direction * a.dataset[key].localeCompare(b.dataset[key], undefined, { numeric: true });
}

function update() {
  for (const cell of cells) cell.hidden = !isShown(cell);
  grid.append(...cells.toSorted(compare));
  const shown = cells.filter((cell) => !cell.hidden).length;
  control("count").textContent = shown === cells.length ? `${shown} runs` : `${shown} of ${cells.length} runs`;
  // the address keeps the choice, so that it can be shared, and "back" from a run returns to it
  const chosen = names.filter((name) => !["", "order", "1"].includes(control(name).value));
  const query = new URLSearchParams(chosen.map((name) => [name, control(name).value])).toString();
  history.replaceState(null, "", query ? `#${query}` : location.pathname);
}

for (const [name, value] of new URLSearchParams(location.hash.slice(1))) if (names.includes(name)) control(name).value = value;
for (const name of names) control(name).addEventListener("input", update);
update();

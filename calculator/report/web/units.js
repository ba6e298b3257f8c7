// Bytes, counts and speeds in words, as calculator/units.py and calculator/report/words.py write them.
export const GIB = 2 ** 30;
export const MIB = 2 ** 20;
export const KIB = 2 ** 10;
const TIGHT = GIB; // the last GiB of a card, where drivers start to spill into host memory

// A half goes to the even digit, as in Python.
export function fixed(value, digits) {
  const scaled = Math.abs(value) * 10 ** digits, low = Math.floor(scaled);
  const rounded = scaled - low === 0.5 ? low + low % 2 : Math.round(scaled);
  return (value < 0 ? "-" : "") + (rounded / 10 ** digits).toFixed(digits);
}

// A unit begins at 1000 of the one below.
export function size(bytes) {
  if (bytes < 0) return "-" + size(-bytes);
  for (const [unit, name, digits] of [[GIB, "GiB", 2], [MIB, "MiB", 1], [KIB, "KiB", 1]]) {
    if (bytes / unit >= 1000 / 1024) return fixed(bytes / unit, digits) + " " + name;
  }
  return bytes + " B";
}

export const number = (count) => count.toLocaleString("en-US");

export const verdict = (margin) => margin < 0 ? "no" : margin < TIGHT ? "tight" : "fits";
export const isTight = (margin) => margin < TIGHT;

export const bandWords = (band) =>
  band ? band.map((speed) => fixed(speed, band[1] >= 10 ? 0 : 1)).join(" to ") : "";

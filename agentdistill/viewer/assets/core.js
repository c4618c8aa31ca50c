// Small helpers. Text from trajectories reaches the page through `textContent` alone, never as HTML.

const $ = (id) => document.getElementById(id);

/** An element with properties and children; strings among the children become text nodes. */
function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") node.className = value;
    else if (name in node && !name.startsWith("aria")) node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** An SVG element with attributes and children. */
function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const SCALE = 10000; // stored numbers are whole ten-thousandths
const FAR = 1e9; // stands for what is infinite

/** A stored number as a float; NaN where there is none. */
const real = (stored) => (stored === null || stored === undefined ? NaN : Math.abs(stored) >= FAR ? Math.sign(stored) * Infinity : stored / SCALE);

/** `0.123`, with a true minus sign, and with a plus sign where wanted; a dash for NaN. */
function fixed(value, digits = 3, plus = false) {
  if (value === null || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value < 0 ? "−∞" : "∞";
  const sign = value < 0 ? "−" : plus ? "+" : "";
  return sign + Math.abs(value).toFixed(digits);
}

const count = (n, one, many = one + "s") => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;

const words = (name) => String(name).replaceAll("_", " ");

/** Mean of the finite numbers among some; NaN where there are none. */
function mean(values) {
  const finite = values.filter(Number.isFinite);
  return finite.length ? finite.reduce((sum, value) => sum + value, 0) / finite.length : NaN;
}

/** What the browser remembers for this viewer; a browser that refuses remembers nothing. */
const memory = {
  get(name) { try { return localStorage.getItem("agentdistill." + name); } catch { return null; } },
  set(name, value) { try { localStorage.setItem("agentdistill." + name, value); } catch { /* private window */ } },
};

/** Let the browser paint and take input. */
const breathe = () => new Promise((done) => setTimeout(done));

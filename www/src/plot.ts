/** A small line plot in SVG, with logarithmic heights; its colours are the style sheet's. */

/** Points of one line; `name` is its class. */
export interface Line {
  readonly name: string;
  readonly points: readonly (readonly [x: number, y: number])[];
}

const WIDTH = 640;
const HEIGHT = 240;
/** Room around the lines: top, right, bottom, left. */
const MARGIN = [14, 20, 26, 58] as const;

/** The plot of `lines`, all of whose heights are above zero; `label` tells it to a screen reader. */
export function plot(lines: readonly Line[], label: string): SVGSVGElement {
  const points = lines.flatMap((line) => line.points);
  const xs = points.map(([x]) => x);
  const ys = points.map(([, y]) => Math.log10(y));
  const [top, right, bottom, left] = MARGIN;
  // Whole powers of ten, so that a height can be read off.
  const low = Math.floor(Math.min(...ys));
  const high = Math.max(low + 1, Math.ceil(Math.max(...ys)));
  const [first, last] = [Math.min(...xs), Math.max(...xs)];
  const place = (x: number): number => (last === first ? (left + WIDTH - right) / 2 : left + ((x - first) / (last - first)) * (WIDTH - left - right));
  const height = (y: number): number => HEIGHT - bottom - ((Math.log10(y) - low) / (high - low)) * (HEIGHT - top - bottom);
  const picture = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label });
  for (let power = low; power <= high; power += 1) {
    const y = height(10 ** power);
    picture.append(draw("line", { class: "grid", x1: left, x2: WIDTH - right, y1: y, y2: y }), draw("text", { class: "tick end", x: left - 8, y: y + 4 }, (10 ** power).toLocaleString("en")));
  }
  for (const x of new Set(xs)) picture.append(draw("text", { class: "tick middle", x: place(x), y: HEIGHT - 6 }, x.toLocaleString("en")));
  for (const { name, points } of lines) {
    const at = points.map(([x, y]) => [place(x), height(y)] as const);
    picture.append(draw("polyline", { class: name, points: at.map((point) => point.join(",")).join(" ") }));
    for (const [index, [x, y]] of at.entries()) {
      const value = points[index]?.[1] ?? 0;
      picture.append(draw("circle", { class: name, cx: x, cy: y, r: 4 }), draw("text", { class: `tick value ${x > WIDTH - 80 ? "end" : "start"}`, x: x > WIDTH - 80 ? x - 8 : x + 8, y: y - 7 }, value.toLocaleString("en", { maximumSignificantDigits: 3 })));
    }
  }
  return picture;
}

function draw<K extends keyof SVGElementTagNameMap>(tag: K, attributes: Readonly<Record<string, string | number>>, text = ""): SVGElementTagNameMap[K] {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(text);
  return element;
}

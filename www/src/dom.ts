/** Elements of a page: found by their ids, of the type that the code counts on, and made anew. */

/** Finds elements of the page `name` by their ids. */
export function finder(name: string) {
  return <T extends HTMLElement>(id: string, type: new () => T): T => {
    const element = document.getElementById(id);
    if (!(element instanceof type)) throw new Error(`${name} has no ${type.name} "${id}"`);
    return element;
  };
}

/** A new element with a class and a text; texts are text nodes, so nothing in them is ever markup. */
export function make<K extends keyof HTMLElementTagNameMap>(tag: K, className: string, text = ""): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  element.className = className;
  element.append(text);
  return element;
}

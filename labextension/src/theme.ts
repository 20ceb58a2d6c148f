/**
 * The theme's colours for drawing on a canvas, and notification of theme changes.
 */

/** The CSS variables of a colour, in order of preference, and the fallback without any. */
export type Colour = readonly [variables: readonly string[], fallback: string];

/** Milliseconds for which a looked-up colour is kept; a theme change discards it at once. */
const LOOK_UP = 10000;

/** Callbacks of a theme change. */
const followers = new Set<() => void>();
let themes: MutationObserver | null = null;

/** Call back on every theme change; call the result to end that. */
export function followTheme(redraw: () => void): () => void {
  followers.add(redraw);
  themes ??= new MutationObserver(() => followers.forEach(each => each()));
  themes.observe(document.body, {
    attributeFilter: ['class', 'data-jp-theme-name']
  });
  return () => {
    followers.delete(redraw);
    if (!followers.size) {
      themes?.disconnect();
      themes = null;
    }
  };
}

/** A cache of colours, because every lookup makes the browser compute all styles. */
export class Palette<Name extends string> {
  constructor(
    private readonly _node: HTMLElement,
    private readonly _colours: Record<Name, Colour>
  ) {}

  get(name: Name): string {
    const now = performance.now();
    if (!this._found || now - this._lookedUp > LOOK_UP) {
      this._lookedUp = now;
      this._found = new Map();
    }
    let found = this._found.get(name);
    if (found === undefined) {
      found = resolve(this._colours[name], getComputedStyle(this._node));
      this._found.set(name, found);
    }
    return found;
  }

  faint(name: Name, alpha: number): string {
    return `color-mix(in srgb, ${this.get(name)} ${alpha * 100}%, transparent)`;
  }

  /** Discard the colours after a theme change. */
  forget(): void {
    this._found = null;
  }

  private _lookedUp = 0;
  private _found: Map<Name, string> | null = null;
}

function resolve(
  [variables, fallback]: Colour,
  style: CSSStyleDeclaration
): string {
  for (const variable of variables) {
    const value = style.getPropertyValue(variable).trim();
    if (value) {
      return value;
    }
  }
  return fallback;
}

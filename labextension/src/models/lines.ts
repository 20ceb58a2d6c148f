/**
 * The choice of models that get a line of their own, and of its colour. A line
 * keeps its colour as long as it is shown.
 */

export interface ISlots {
  /** Key of a model → index of its colour, in the order of the colours. */
  of: ReadonlyMap<string, number>;
  /** Whether other models were active too. */
  hasMore: boolean;
}

/** A shown model is replaced by one that is busier by this factor. */
const STAYS = 1.2;

/** Choose the `most` busiest models from keys and sums of rates, in descending order; idle models get no line. */
export function busiest(
  sums: readonly (readonly [key: string, sum: number])[],
  before: ReadonlyMap<string, number>,
  most: number
): ISlots {
  const active = sums.filter(([, sum]) => sum > 0);
  const ranked = active
    .map(([key, sum]) => ({ key, sum: before.has(key) ? STAYS * sum : sum }))
    .sort((a, b) => b.sum - a.sum)
    .slice(0, most)
    .map(each => each.key);
  const free = new Set(Array.from({ length: most }, (_, slot) => slot));
  const slots = new Map<string, number>();
  for (const key of ranked) {
    const slot = before.get(key);
    if (slot !== undefined && free.delete(slot)) {
      slots.set(key, slot);
    }
  }
  for (const key of ranked) {
    if (!slots.has(key)) {
      const [slot] = free;
      free.delete(slot);
      slots.set(key, slot);
    }
  }
  return {
    of: new Map([...slots].sort(([, a], [, b]) => a - b)),
    hasMore: active.length > ranked.length
  };
}

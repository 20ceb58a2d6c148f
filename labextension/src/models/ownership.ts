/**
 * Whose a deployed model is, how large, and when it was last used, in words.
 */
import type { TranslationBundle } from '@jupyterlab/translation';

import { clip, duration, size } from './format';
import type { IModelRow } from './load';

/** Seconds; a more recent use is "just now", because the server is asked only every few seconds. */
const RECENT = 60;

/** Short parts for the line below a model's name; none for the facility's own models. */
export function ownershipOf(
  row: IModelRow,
  now: number,
  trans: TranslationBundle
): string[] {
  if (!row.mine) {
    return row.owner ? [trans.__('by %1', clip(row.owner, 60))] : [];
  }
  const parts = [trans.__('yours')];
  const bytes = row.deployed?.size ?? null;
  if (bytes !== null) {
    parts.push(size(bytes));
  }
  if (row.state === null) {
    parts.push(lastUse(row.lastUsed, now, trans));
  }
  return parts;
}

/** "deployed 3 d ago, from torch 2.13.0"; empty if nothing is known. */
export function deploymentOf(
  row: IModelRow,
  now: number,
  trans: TranslationBundle
): string {
  const { time = null, source = '' } = row.deployed ?? {};
  const parts = [
    time !== null &&
      trans.__('deployed %1 ago', duration(Math.max(0, now / 1000 - time))),
    source && trans.__('made from %1', clip(source))
  ];
  return parts.filter(Boolean).join(', ');
}

function lastUse(
  time: number | null,
  now: number,
  trans: TranslationBundle
): string {
  if (time === null) {
    return trans.__('last use unknown');
  }
  if (time === 0) {
    return trans.__('not used since it was loaded');
  }
  const age = now / 1000 - time;
  return age < RECENT
    ? trans.__('used just now')
    : trans.__('used %1 ago', duration(age));
}

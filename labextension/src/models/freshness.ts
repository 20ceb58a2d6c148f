/**
 * Whether what is on the screen is of now, and if not, since when and why.
 */
import type { TranslationBundle } from '@jupyterlab/translation';

import type { ISnapshot, ISource } from '../api';
import type { StreamState } from '../stream';
import { clip, duration } from './format';

export interface IFreshness {
  stale: boolean;
  /** Seconds since the shown numbers were measured; null without any. */
  age: number | null;
  /** Why it is stale, and what happens next. */
  note: string | null;
}

/** Whether nothing in a snapshot is of now: it has sources, and each one fails. */
export function isSilent(snapshot: ISnapshot): boolean {
  const { sources } = snapshot;
  return sources.length > 0 && sources.every(source => source.error !== null);
}

/**
 * Parameters: now, in milliseconds; when the last frame came; when the shown
 * snapshot came; the newest snapshot's sources; the socket; the interval.
 */
export function freshness(
  now: number,
  known: {
    heard: number | null;
    measured: number | null;
    sources: readonly ISource[];
    stream: StreamState;
    interval: number;
  },
  trans: TranslationBundle
): IFreshness {
  const { heard, measured, sources, stream, interval } = known;
  const age = measured === null ? null : Math.max(0, (now - measured) / 1000);
  const silence = heard === null ? 0 : (now - heard) / 1000;
  if (stream.kind === 'waiting') {
    const retry = duration((stream.retryAt - now) / 1000);
    return {
      stale: true,
      age,
      note: trans.__(
        'No connection to the Jupyter server, next try in %1',
        retry
      )
    };
  }
  if (stream.kind === 'open' && silence > Math.max(5, 3 * interval)) {
    return {
      stale: true,
      age,
      note: trans.__(
        'No news from the Jupyter server for %1',
        duration(silence)
      )
    };
  }
  if (sources.length && sources.every(source => source.error !== null)) {
    const retry = Math.min(...sources.map(source => source.retry_in ?? 0));
    const why = clip(sources[0].error ?? '', 200);
    return {
      stale: true,
      age,
      note:
        age === null
          ? trans.__('No numbers: %1. Next try in %2', why, duration(retry))
          : trans.__(
              'No numbers for %1: %2. Next try in %3',
              duration(age),
              why,
              duration(retry)
            )
    };
  }
  return { stale: false, age, note: null };
}

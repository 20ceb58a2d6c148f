/**
 * Whether the numbers on the screen are current, and if not, since when and why.
 */
import type { TranslationBundle } from '@jupyterlab/translation';

import type { ISource } from '../api';
import type { StreamState } from '../stream';
import { clip, duration } from './format';

export interface IFreshness {
  stale: boolean;
  /** Seconds since the shown numbers were measured; null without any. */
  age: number | null;
  /** Why the numbers are stale, and what happens next. */
  note: string | null;
}

/** Whether all sources of metrics fail, so that a snapshot has no measurements. */
export function allFail(sources: readonly ISource[]): boolean {
  return sources.length > 0 && sources.every(source => source.error !== null);
}

/** The freshness at a time, in milliseconds, of what `LiveModel` has. */
export function freshness(
  now: number,
  live: {
    readonly heard: number | null;
    readonly measured: number | null;
    readonly sources: readonly ISource[];
    readonly streamState: StreamState;
    readonly interval: number;
  },
  trans: TranslationBundle
): IFreshness {
  const { heard, measured, sources, streamState: stream, interval } = live;
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
        'No data from the Jupyter server for %1',
        duration(silence)
      )
    };
  }
  if (allFail(sources)) {
    const retry = Math.min(...sources.map(source => source.retry_in ?? 0));
    const why = clip(`${sources[0].name}: ${sources[0].error}`, 200);
    return {
      stale: true,
      age,
      note:
        age === null
          ? trans.__('No numbers. %1. Next try in %2', why, duration(retry))
          : trans.__(
              'No numbers for %1. %2. Next try in %3',
              duration(age),
              why,
              duration(retry)
            )
    };
  }
  return { stale: false, age, note: null };
}

/** When the numbers were measured, in words; null without numbers. */
export function ageText(
  { age, stale }: IFreshness,
  trans: TranslationBundle
): string | null {
  if (age === null) {
    return null;
  }
  if (stale) {
    return trans.__('last updated %1 ago', duration(age));
  }
  return age < 3
    ? trans.__('up to date')
    : trans.__('updated %1 ago', duration(age));
}

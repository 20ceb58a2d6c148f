/**
 * The whole service in a few words: for the status bar, and its colour.
 */
import type { TranslationBundle } from '@jupyterlab/translation';

import type { ISnapshot } from '../api';
import { mean, number, percent } from './format';

export type Level = 'normal' | 'busy' | 'saturated' | 'unknown';

const BUSY = 0.7;
const SATURATED = 0.9;

export interface IStatus {
  text: string;
  title: string;
  level: Level;
}

export function levelOf(value: number | null | undefined): Level {
  if (value === null || value === undefined) {
    return 'unknown';
  }
  if (value >= SATURATED) {
    return 'saturated';
  }
  return value >= BUSY ? 'busy' : 'normal';
}

/** Milliseconds that a mean request of any model waits; null where no request was measured. */
export function queueOf(snapshot: ISnapshot): number | null {
  let waited = 0;
  let requests = 0;
  for (const model of snapshot.models) {
    if (model.queue_ms !== null && model.requests_per_second) {
      waited += model.queue_ms * model.requests_per_second;
      requests += model.requests_per_second;
    }
  }
  return requests > 0 ? waited / requests : null;
}

/** What is busy, and how much of its time: GPUs, else the machine's CPUs, else an estimate. */
export function loadOf(
  snapshot: ISnapshot,
  trans: TranslationBundle
): { name: string; value: number | null; title: string } {
  const { busy, hosts } = snapshot;
  if (busy && busy.of === 'GPU') {
    return {
      name: trans.__('GPU'),
      value: busy.value,
      title: trans.__('Mean utilization of the GPUs')
    };
  }
  const cpu = mean(hosts.map(host => host.cpu_utilization));
  if (cpu !== null) {
    return {
      name: trans.__('CPU'),
      value: cpu,
      title: trans.__(
        'No GPU is reported by this server; this is its CPU utilization'
      )
    };
  }
  if (busy) {
    return {
      name: trans.__('Compute'),
      value: busy.value,
      title: trans.__(
        'No GPU utilization is reported; estimated from the time spent in computation'
      )
    };
  }
  return {
    name: trans.__('Triton'),
    value: null,
    title: trans.__('No utilization is reported')
  };
}

export function statusOf(
  snapshot: ISnapshot | null,
  note: string | null,
  trans: TranslationBundle
): IStatus {
  if (note !== null || snapshot === null) {
    return {
      text: trans.__('Triton'),
      title: note ?? trans.__('No numbers yet'),
      level: 'unknown'
    };
  }
  const load = loadOf(snapshot, trans);
  const queue = queueOf(snapshot);
  const parts = [
    load.value === null ? load.name : `${load.name} ${percent(load.value)}`
  ];
  if (queue !== null) {
    parts.push(trans.__('queue %1 ms', number(queue)));
  }
  return {
    text: parts.join(' · '),
    title: load.title,
    level: levelOf(load.value)
  };
}

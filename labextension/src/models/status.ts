/**
 * The text and colour of the status bar item, and the sums behind it.
 */
import type { TranslationBundle } from '@jupyterlab/translation';

import type { IAdvice, ISnapshot } from '../api';
import { duration, mean, number, percent } from './format';
import { lacksGpus } from './gpus';

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

/** Mean wait of a request, over all models, in milliseconds; null without requests. */
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

/** Inferences per second of all models; null if none is reported. */
export function rateOf(snapshot: ISnapshot): number | null {
  const rates = snapshot.models
    .map(model => model.inferences_per_second)
    .filter(rate => rate !== null);
  return rates.length ? rates.reduce((sum, rate) => sum + rate, 0) : null;
}

/** The period of the figures, for example "last 23 s". */
export function windowOf(average: ISnapshot, trans: TranslationBundle): string {
  return trans.__('last %1', duration(Math.max(1, average.window ?? 0)));
}

/** The utilization to show: of the GPUs, else of the machine's CPUs, else an estimate. */
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
      title: lacksGpus(snapshot)
        ? trans.__(
            'No GPU is reported by this server; this is its CPU utilization'
          )
        : trans.__('CPU utilization of the server')
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

/** The status bar item; a note gives the reason why there are no current figures. */
export function statusOf(
  average: ISnapshot | null,
  advice: IAdvice | null,
  note: string | null,
  trans: TranslationBundle
): IStatus {
  if (note !== null || average === null) {
    return {
      text: trans.__('Triton'),
      title: note ?? trans.__('No numbers yet'),
      level: 'unknown'
    };
  }
  const load = loadOf(average, trans);
  const queue = queueOf(average);
  const rate = rateOf(average);
  const parts = [
    load.value === null ? load.name : `${load.name} ${percent(load.value)}`
  ];
  if (queue !== null) {
    parts.push(trans.__('queue %1 ms', number(queue)));
  }
  if (rate !== null) {
    parts.push(trans.__('%1 jets/s', number(rate)));
  }
  const title = [load.title, windowOf(average, trans)].join(', ');
  return {
    text: parts.join(' · '),
    title: advice ? `${advice.title} ${advice.text}\n${title}` : title,
    level: levelOf(load.value)
  };
}

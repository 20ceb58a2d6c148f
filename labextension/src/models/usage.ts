/**
 * This user's own usage of the facility in the last 24 hours.
 */
import { IDisposable } from '@lumino/disposable';
import { Poll } from '@lumino/polling';
import { ISignal, Signal } from '@lumino/signaling';

import type { TranslationBundle } from '@jupyterlab/translation';

import type { IApi, IModelUsage, IUsage } from '../api';
import { clip, duration } from './format';

/** Milliseconds between two requests; at most SLOWEST after failures. */
const EVERY = 60_000;
const SLOWEST = 600_000;

/** Sums over models. */
export interface IUsed {
  requests: number;
  inferences: number;
  failures: number;
  /** Sent and received. */
  bytes: number;
  estimated: boolean;
}

/** The sum over all models, including failed calls without a known model. */
export function total(models: readonly IModelUsage[]): IUsed {
  const all: IUsed = {
    requests: 0,
    inferences: 0,
    failures: 0,
    bytes: 0,
    estimated: false
  };
  for (const each of models) {
    all.requests += each.requests;
    all.inferences += each.inferences;
    all.failures += each.failures;
    all.bytes += each.bytes_in + each.bytes_out;
    all.estimated ||= each.estimated;
  }
  return all;
}

/** The named models in descending order of inferences; empty for a single one, which equals the total. */
export function byModel(models: readonly IModelUsage[]): IModelUsage[] {
  const named = models.filter(each => each.model);
  return named.length > 1
    ? named.sort((a, b) => b.inferences - a.inferences)
    : [];
}

/** Why there are no current numbers, and the age of those that are shown; null if they are current. */
export function problemOf(
  usage: IUsage,
  now: number,
  trans: TranslationBundle
): string | null {
  const { problem, at, models, owned } = usage;
  if (problem === null) {
    return null;
  }
  const why = clip(problem, 300);
  return at !== null && models.length + owned.length > 0
    ? trans.__('Numbers from %1 ago. %2', duration(now / 1000 - at), why)
    : why;
}

/** The usage, requested every minute while a widget shows it. */
export class UsageModel implements IDisposable {
  constructor(api: IApi) {
    this._poll = new Poll<IUsage>({
      name: 'eaf-inference:usage',
      auto: false,
      factory: () => api.usage(),
      frequency: { interval: EVERY, backoff: true, max: SLOWEST },
      standby: 'when-hidden'
    });
    this._poll.ticked.connect((_, state) => {
      if (state.phase === 'resolved') {
        this._answer = state.payload as IUsage;
        this._changed.emit();
      }
    });
  }

  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** Null until the server has answered. */
  get answer(): IUsage | null {
    return this._answer;
  }

  get isDisposed(): boolean {
    return this._poll.isDisposed;
  }

  /** Note whether a widget shows the usage; it is requested while any does. */
  hold(holder: string, isVisible: boolean): void {
    const before = this._holders.size > 0;
    if (isVisible) {
      this._holders.add(holder);
    } else {
      this._holders.delete(holder);
    }
    if (before !== this._holders.size > 0) {
      void (before ? this._poll.stop() : this._poll.refresh());
    }
  }

  dispose(): void {
    if (!this.isDisposed) {
      this._poll.dispose();
      Signal.clearData(this);
    }
  }

  private readonly _holders = new Set<string>();
  private _answer: IUsage | null = null;
  private _poll: Poll<IUsage>;
  private _changed = new Signal<this, void>(this);
}

/**
 * What this page asked the gateway to do with clusters, and how that went.
 */
import type { TranslationBundle } from '@jupyterlab/translation';
import { IDisposable } from '@lumino/disposable';
import { ISignal, Signal } from '@lumino/signaling';

import type { ICluster, IClusterApi } from '../api';
import { clip } from './format';

interface IChange {
  /** Null: shut it down. */
  workers: number | null;
  state: 'asked' | 'accepted' | 'failed';
  /** The gateway's remark, or why it failed. */
  said: string;
}

export interface INote {
  text: string;
  failed: boolean;
}

export class ClusterChanges implements IDisposable {
  constructor(private readonly _api: IClusterApi) {}

  get changed(): ISignal<this, void> {
    return this._changed;
  }

  get isDisposed(): boolean {
    return this._isDisposed;
  }

  scale(name: string, workers: number): Promise<void> {
    return this._change(name, workers, this._api.scale(name, workers));
  }

  shutDown(name: string): Promise<void> {
    return this._change(name, null, this._api.shutDown(name));
  }

  /** Shut down from here: whoever still tells of it has not noticed yet. */
  isGone(name: string): boolean {
    const change = this._changes.get(name);
    return change?.workers === null && change.state === 'accepted';
  }

  /** Whether the gateway has not answered yet. */
  isAsked(name: string): boolean {
    return this._changes.get(name)?.state === 'asked';
  }

  /** What is to be said of a cluster beside its figures; null for nothing. */
  note(cluster: ICluster, trans: TranslationBundle): INote | null {
    const change = this._changes.get(cluster.name);
    if (!change) {
      return null;
    }
    const { workers, state } = change;
    const said = clip(change.said, 300);
    if (state === 'failed') {
      const text =
        workers === null
          ? trans.__('Not shut down: %1', said)
          : trans.__('Not scaled: %1', said);
      return { text, failed: true };
    }
    const text =
      workers === null
        ? trans.__('Shutting down…')
        : said || cluster.workers !== workers
          ? trans._n(
              '%1 worker was asked for.',
              '%1 workers were asked for.',
              workers,
              workers
            )
          : '';
    const whole = [text, said].filter(Boolean).join(' ');
    return whole ? { text: whole, failed: false } : null;
  }

  dispose(): void {
    if (!this._isDisposed) {
      this._isDisposed = true;
      Signal.clearData(this);
    }
  }

  private async _change(
    name: string,
    workers: number | null,
    answer: Promise<{ remark: string }>
  ): Promise<void> {
    const set = (state: IChange['state'], said: string) => {
      this._changes.set(name, { workers, state, said });
      this._changed.emit();
    };
    set('asked', '');
    try {
      set('accepted', (await answer).remark);
    } catch (error) {
      set('failed', error instanceof Error ? error.message : String(error));
    }
  }

  private _isDisposed = false;
  private _changes = new Map<string, IChange>();
  private _changed = new Signal<this, void>(this);
}

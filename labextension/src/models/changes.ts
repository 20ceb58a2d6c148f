/**
 * Changes to clusters that this page requested from the gateway, and their results.
 */
import type { TranslationBundle } from '@jupyterlab/translation';
import { IDisposable } from '@lumino/disposable';
import { ISignal, Signal } from '@lumino/signaling';

import type { ICluster, IClusterApi, IClusterChange } from '../api';
import { clip } from './format';

interface IChange {
  /** The requested number; null to shut the cluster down. */
  workers: number | null;
  state: 'requested' | 'accepted' | 'failed';
  /** The gateway's remark, or the reason for the failure. */
  answer: string;
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

  /** Whether it was shut down from this page; the gateway's list may still contain it. */
  isGone(name: string): boolean {
    const change = this._changes.get(name);
    return change?.workers === null && change.state === 'accepted';
  }

  /** Whether the gateway has not answered yet. */
  isRequested(name: string): boolean {
    return this._changes.get(name)?.state === 'requested';
  }

  /** The note to show below a cluster's figures, if any. */
  note(
    cluster: Pick<ICluster, 'name' | 'workers'>,
    trans: TranslationBundle
  ): INote | null {
    const change = this._changes.get(cluster.name);
    if (!change) {
      return null;
    }
    const { workers, state } = change;
    const answer = clip(change.answer, 300);
    if (state === 'failed') {
      const text =
        workers === null
          ? trans.__('Not shut down: %1', answer)
          : trans.__('Not scaled: %1', answer);
      return { text, failed: true };
    }
    const text =
      workers === null
        ? trans.__('Shutting down…')
        : answer || cluster.workers !== workers
          ? trans._n(
              'Requested %1 worker.',
              'Requested %1 workers.',
              workers,
              workers
            )
          : '';
    const whole = [text, answer].filter(Boolean).join(' ');
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
    reply: Promise<IClusterChange>
  ): Promise<void> {
    const set = (state: IChange['state'], answer: string) => {
      this._changes.set(name, { workers, state, answer });
      this._changed.emit();
    };
    set('requested', '');
    try {
      set('accepted', (await reply).remark);
    } catch (error) {
      set('failed', error instanceof Error ? error.message : String(error));
    }
  }

  private _isDisposed = false;
  private _changes = new Map<string, IChange>();
  private _changed = new Signal<this, void>(this);
}

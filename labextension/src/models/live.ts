/**
 * The server's latest data: facility, snapshots, advice, and their age. It is
 * kept current only while a visible widget holds it.
 */
import { IDisposable } from '@lumino/disposable';
import { ISignal, Signal } from '@lumino/signaling';

import {
  ApiError,
  Frame,
  IAdvice,
  IApi,
  IClusters,
  IFacility,
  ISnapshot,
  ISource
} from '../api';
import { Stream, StreamState } from '../stream';
import { allFail } from './freshness';
import { IPoint, merged, pointOf } from './history';

const TICK = 1000;
/** Milliseconds between requests for the facility while Triton is not connected. */
const RETRY = 15000;

export class LiveModel implements IDisposable {
  constructor(
    private readonly _api: IApi,
    private readonly _stream: Stream
  ) {
    _stream.received.connect(this._onFrame, this);
    _stream.stateChanged.connect(this._onStreamState, this);
  }

  /** Emitted when the shown data may differ, at least every two seconds while held. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  get facility(): IFacility | null {
    return this._facility;
  }

  /** Why the request for the facility failed. */
  get failure(): ApiError | null {
    return this._failure;
  }

  /** The newest snapshot with measurements. */
  get snapshot(): ISnapshot | null {
    return this._snapshot;
  }

  /** The mean of the current run, which is shown as text. */
  get average(): ISnapshot | null {
    return this._average;
  }

  get advice(): IAdvice | null {
    return this._advice;
  }

  /** This user's Dask clusters; null until they are known. */
  get clusters(): IClusters | null {
    return this._clusters;
  }

  /** The sources of metrics and their current state. */
  get sources(): readonly ISource[] {
    return this._sources;
  }

  get points(): readonly IPoint[] {
    return this._points;
  }

  get streamState(): StreamState {
    return this._stream.state;
  }

  /** When the last frame arrived, in milliseconds by this clock. */
  get heard(): number | null {
    return this._heard;
  }
  /** When the shown snapshot arrived, likewise. */
  get measured(): number | null {
    return this._measured;
  }

  get isHeld(): boolean {
    return this._holders.size > 0;
  }

  get isDisposed(): boolean {
    return this._isDisposed;
  }

  get interval(): number {
    return this._stream.interval;
  }
  get window(): number {
    return this._window;
  }

  configure(interval: number, window: number): void {
    this._stream.interval = interval;
    const longer = window > this._window;
    this._window = window;
    if (longer && this.isHeld) {
      void this._fillHistory();
    }
    this._changed.emit();
  }

  /** Note whether a widget shows clusters now. */
  wantClusters(holder: string, wants: boolean): void {
    if (wants) {
      this._wantClusters.add(holder);
    } else {
      this._wantClusters.delete(holder);
    }
    this._stream.clusters = this._wantClusters.size > 0;
  }

  /** Note whether a widget is visible; the first one starts the stream, the last one stops it. */
  hold(holder: string, isVisible: boolean): void {
    const before = this.isHeld;
    if (isVisible) {
      this._holders.add(holder);
    } else {
      this._holders.delete(holder);
    }
    if (this.isHeld && !before) {
      this._heard = null;
      this._stream.start();
      this._ticking = setInterval(() => this._tick(), TICK);
      void this.refresh();
    } else if (before && !this.isHeld) {
      this._stream.stop();
      clearInterval(this._ticking);
    }
  }

  /** Request the facility again, and reconnect the stream now if it is waiting. */
  async refresh(): Promise<void> {
    this._stream.retry();
    await this._request();
  }

  private async _request(): Promise<void> {
    this._requested = Date.now();
    try {
      this._facility = await this._api.facility();
      this._failure = null;
    } catch (error) {
      this._failure =
        error instanceof ApiError ? error : new ApiError(0, String(error));
      if (this._failure.status !== 0) {
        this._facility = null; // the server answered with an error
      }
    }
    if (!this._isDisposed) {
      this._changed.emit();
    }
  }

  dispose(): void {
    if (!this._isDisposed) {
      this._isDisposed = true;
      clearInterval(this._ticking);
      this._stream.dispose();
      Signal.clearData(this);
    }
  }

  private _onFrame(_: Stream, frame: Frame): void {
    this._heard = Date.now();
    if (frame.type === 'facility') {
      this._facility = frame.facility;
      this._failure = null;
    } else if (frame.type === 'clusters') {
      this._clusters = frame;
    } else {
      this._take(frame.snapshot, frame.average, frame.advice);
    }
    this._emitted = this._heard;
    this._changed.emit();
  }

  private _take(
    snapshot: ISnapshot,
    average: ISnapshot,
    advice: IAdvice | null
  ): void {
    this._sources = snapshot.sources;
    if (allFail(snapshot.sources)) {
      return; // the last figures stay on the screen, greyed out
    }
    this._snapshot = snapshot;
    this._average = average;
    this._advice = advice;
    this._measured = Date.now();
    const before = this._points.filter(point => point.time < snapshot.time); // all, unless its clock was set back
    this._points = merged(before, [pointOf(snapshot)], this._window);
  }

  private _onStreamState(_: Stream, state: StreamState): void {
    if (state.kind === 'open') {
      this._heard = Date.now();
      void this._fillHistory();
    } else if (state.kind === 'waiting') {
      void this._request(); // finds the reason while the stream waits
    }
    this._changed.emit();
  }

  /** Fetch what was measured while this page did not listen. */
  private async _fillHistory(): Promise<void> {
    try {
      const { snapshots } = await this._api.history(this._window);
      const points = snapshots
        .filter(snapshot => !allFail(snapshot.sources))
        .map(pointOf);
      this._points = merged(this._points, points, this._window);
    } catch {
      return; // the lines begin now; the banner reports the failure
    }
    if (!this._isDisposed) {
      this._changed.emit();
    }
  }

  private _tick(): void {
    const now = Date.now();
    const isHere = this._facility?.state === 'connected';
    if (!isHere && now - this._requested >= RETRY) {
      void this.refresh();
    }
    if (now - this._emitted >= 1.5 * TICK) {
      this._changed.emit(); // the shown ages grow
    }
  }

  private _facility: IFacility | null = null;
  private _failure: ApiError | null = null;
  private _snapshot: ISnapshot | null = null;
  private _average: ISnapshot | null = null;
  private _advice: IAdvice | null = null;
  private _clusters: IClusters | null = null;
  private _sources: readonly ISource[] = [];
  private _points: readonly IPoint[] = [];
  private _window = 120;
  private _heard: number | null = null;
  private _measured: number | null = null;
  private _emitted = 0;
  private _requested = 0;
  private _isDisposed = false;
  private _holders = new Set<string>();
  private _wantClusters = new Set<string>();
  private _ticking: ReturnType<typeof setInterval> | undefined;
  private _changed = new Signal<this, void>(this);
}

/**
 * The websocket: open while a widget is visible, reconnected with growing pauses.
 * It knows the state of the connection, but not the meaning of the frames.
 */
import { IDisposable } from '@lumino/disposable';
import { ISignal, Signal } from '@lumino/signaling';

import type { Frame, IStreamRequest } from './api';

const LONGEST_PAUSE = 30;
/** Seconds without a frame, in addition to the interval, after which a socket counts as dead. */
const SILENCE = 15;

export type StreamState =
  | { kind: 'closed' }
  | { kind: 'connecting' }
  | { kind: 'open' }
  | { kind: 'waiting'; retryAt: number };

/** The part of WebSocket that is used here. */
export interface ISocket {
  onopen: ((event: Event) => void) | null;
  onclose: ((event: CloseEvent) => void) | null;
  onmessage: ((event: MessageEvent) => void) | null;
  send(text: string): void;
  close(): void;
}

/**
 * Seconds until the next attempt: 1, 2, 4 … 30, plus or minus a quarter, so that
 * not all clients reconnect to a restarted server at once.
 */
export function pause(failures: number, random: number): number {
  const seconds = Math.min(LONGEST_PAUSE, 2 ** Math.max(0, failures - 1));
  return seconds * (0.75 + random / 2);
}

/** Parse a frame of the protocol; null for anything else. */
export function parse(data: unknown): Frame | null {
  if (typeof data !== 'string') {
    return null;
  }
  let frame: Partial<Frame> | null;
  try {
    frame = JSON.parse(data);
  } catch {
    return null;
  }
  const known =
    (frame?.type === 'snapshot' && frame.snapshot && frame.average) ||
    (frame?.type === 'facility' && frame.facility) ||
    (frame?.type === 'clusters' && frame.clusters);
  return known ? (frame as Frame) : null;
}

export class Stream implements IDisposable {
  constructor(
    private readonly _open: () => ISocket,
    private readonly _random: () => number = Math.random
  ) {}

  /** Emitted for each frame. */
  get received(): ISignal<this, Frame> {
    return this._received;
  }

  get stateChanged(): ISignal<this, StreamState> {
    return this._stateChanged;
  }

  get state(): StreamState {
    return this._state;
  }

  get isDisposed(): boolean {
    return this._isDisposed;
  }

  /** Seconds between two snapshots, as requested from the server, which may clamp it. */
  get interval(): number {
    return this._interval;
  }
  set interval(seconds: number) {
    if (seconds !== this._interval) {
      this._interval = seconds;
      this._sendRequest();
    }
  }

  /** Whether to request the user's clusters, for which the server asks the gateway. */
  set clusters(wanted: boolean) {
    if (wanted !== this._clusters) {
      this._clusters = wanted;
      this._sendRequest();
    }
  }

  start(): void {
    if (!this._isDisposed && this._state.kind === 'closed') {
      this._failures = 0;
      this._connect();
    }
  }

  stop(): void {
    this._drop();
    this._setState({ kind: 'closed' });
  }

  /** Reconnect now instead of after the pause. */
  retry(): void {
    if (this._state.kind === 'waiting') {
      this._drop();
      this._connect();
    }
  }

  dispose(): void {
    if (!this._isDisposed) {
      this.stop();
      this._isDisposed = true;
      Signal.clearData(this);
    }
  }

  private _connect(): void {
    this._setState({ kind: 'connecting' });
    let socket: ISocket;
    try {
      socket = this._open();
    } catch {
      this._failed();
      return;
    }
    this._socket = socket;
    this._watch();
    socket.onopen = () => {
      this._setState({ kind: 'open' });
      this._sendRequest();
      this._watch();
    };
    socket.onclose = () => this._failed();
    socket.onmessage = event => {
      this._failures = 0; // only a received frame proves that the connection works
      this._watch();
      const frame = parse(event.data);
      if (frame) {
        this._received.emit(frame);
      }
    };
  }

  private _failed(): void {
    this._drop();
    this._failures += 1;
    const seconds = pause(this._failures, this._random());
    this._setState({ kind: 'waiting', retryAt: Date.now() + seconds * 1000 });
    this._timer = setTimeout(() => this._connect(), seconds * 1000);
  }

  /** Detect silence, because a proxy may keep a socket open after the server is gone. */
  private _watch(): void {
    clearTimeout(this._timer);
    this._timer = setTimeout(
      () => this._failed(),
      (SILENCE + 3 * this._interval) * 1000
    );
  }

  private _drop(): void {
    clearTimeout(this._timer);
    const socket = this._socket;
    this._socket = null;
    if (socket) {
      socket.onopen = socket.onclose = socket.onmessage = null;
      socket.close();
    }
  }

  private _sendRequest(): void {
    if (this._state.kind === 'open') {
      const request: IStreamRequest = {
        interval: this._interval,
        clusters: this._clusters
      };
      this._socket?.send(JSON.stringify(request));
    }
  }

  private _setState(state: StreamState): void {
    if (state.kind !== 'closed' || this._state.kind !== 'closed') {
      this._state = state;
      this._stateChanged.emit(state);
    }
  }

  private _interval = 1;
  private _clusters = false;
  private _failures = 0;
  private _isDisposed = false;
  private _socket: ISocket | null = null;
  private _state: StreamState = { kind: 'closed' };
  private _timer: ReturnType<typeof setTimeout> | undefined;
  private _received = new Signal<this, Frame>(this);
  private _stateChanged = new Signal<this, StreamState>(this);
}

/**
 * Notebooks whose kernel is connected to Triton, as the kernels themselves tell
 * over their comm.
 */
import type { Kernel, KernelMessage } from '@jupyterlab/services';
import { IDisposable } from '@lumino/disposable';
import { ISignal, Signal } from '@lumino/signaling';

import { ISession } from '../api';

export const TARGET = 'eaf-inference';

const GONE = new Set(['restarting', 'autorestarting', 'dead', 'terminating']);

/** The part of a notebook's panel that is used. */
export interface INotebook {
  readonly title: string;
  readonly path: string;
  /** Bring it to the front. */
  reveal(): void;
}

export interface IConnectedNotebook {
  /** The comm's id. */
  id: string;
  notebook: INotebook;
  /** Null until the kernel has told something. */
  session: ISession | null;
  /** Interrupt the kernel. */
  stop(): Promise<void>;
}

/** The session in a comm message's data, or null where there is none. */
export function sessionOf(data: unknown): ISession | null {
  const session = (data as { session?: Partial<ISession> } | null)?.session;
  return session &&
    typeof session.inferences === 'number' &&
    Array.isArray(session.clusters)
    ? (session as ISession)
    : null;
}

export class SessionsModel implements IDisposable {
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** In the order in which they connected. */
  get all(): IConnectedNotebook[] {
    return [...this._byComm.values()];
  }

  get isBusy(): boolean {
    return this.all.some(each => each.session?.busy);
  }

  get isDisposed(): boolean {
    return this._isDisposed;
  }

  isConnected(path: string): boolean {
    return this.all.some(each => each.notebook.path === path);
  }

  /** Listen to a notebook's kernel; returns what to call when it has another one, or is closed. */
  follow(notebook: INotebook, kernel: Kernel.IKernelConnection): () => void {
    const opened = (comm: Kernel.IComm, message: KernelMessage.ICommOpenMsg) =>
      this._add(notebook, kernel, comm, sessionOf(message.content.data));
    kernel.registerCommTarget(TARGET, opened);

    // After a reload the kernel goes on with a comm that this page does not know.
    const adopt = (id: string, session: ISession | null) => {
      if (kernel.isDisposed || !kernel.handleComms || this._byComm.has(id)) {
        return;
      }
      if (!kernel.hasComm(id)) {
        this._add(notebook, kernel, kernel.createComm(TARGET, id), session);
      }
    };
    // Any message is seen before JupyterLab looks for its comm, and misses it.
    const heard = (_: unknown, { msg, direction }: Kernel.IAnyMessageArgs) => {
      if (direction === 'recv' && msg.header.msg_type === 'comm_msg') {
        const { comm_id, data } = (msg as KernelMessage.ICommMsgMsg).content;
        const session = sessionOf(data);
        if (session) {
          adopt(comm_id, session);
        }
      }
    };
    const state = (_: unknown, status: Kernel.Status) => {
      if (GONE.has(status)) {
        this._forget(kernel);
      }
    };
    kernel.anyMessage.connect(heard);
    kernel.statusChanged.connect(state);
    void kernel
      .requestCommInfo({ target_name: TARGET })
      .then(({ content }) => {
        if (content.status === 'ok') {
          Object.keys(content.comms).forEach(id => adopt(id, null));
        }
      })
      .catch(() => undefined); // the kernel died meanwhile, which its status tells

    return () => {
      kernel.anyMessage.disconnect(heard);
      kernel.statusChanged.disconnect(state);
      if (!kernel.isDisposed) {
        kernel.removeCommTarget(TARGET, opened);
      }
      this._forget(kernel);
    };
  }

  dispose(): void {
    if (!this._isDisposed) {
      this._isDisposed = true;
      this._byComm.clear();
      this._kernels.clear();
      Signal.clearData(this);
    }
  }

  private _add(
    notebook: INotebook,
    kernel: Kernel.IKernelConnection,
    comm: Kernel.IComm,
    session: ISession | null
  ): void {
    const id = comm.commId;
    const set = (news: ISession | null) => {
      this._byComm.set(id, {
        id,
        notebook,
        session: news,
        stop: () => kernel.interrupt()
      });
      this._changed.emit();
    };
    comm.onMsg = message => {
      const news = sessionOf(message.content.data);
      if (news && this._byComm.has(id)) {
        set(news);
      }
    };
    comm.onClose = () => {
      this._byComm.delete(id);
      this._kernels.delete(id);
      this._changed.emit();
    };
    this._kernels.set(id, kernel);
    set(session);
  }

  private _forget(kernel: Kernel.IKernelConnection): void {
    for (const [id, of] of [...this._kernels]) {
      if (of === kernel) {
        this._kernels.delete(id);
        this._byComm.delete(id);
      }
    }
    this._changed.emit();
  }

  private _isDisposed = false;
  private _byComm = new Map<string, IConnectedNotebook>();
  private _kernels = new Map<string, Kernel.IKernelConnection>();
  private _changed = new Signal<this, void>(this);
}

/**
 * Notebooks whose kernel is connected to Triton, as the kernels report over their
 * comm. Its messages are read by listening to all messages of a kernel: if several
 * notebooks share a kernel, only one of them handles the comm, and after a reload
 * none does at first.
 */
import type { Kernel, KernelMessage } from '@jupyterlab/services';
import { IDisposable } from '@lumino/disposable';
import { ISignal, Signal } from '@lumino/signaling';

import { ISession } from '../api';

export const TARGET = 'eaf-inference';

/** Why a kernel lost its connection. */
export type Lost = 'restarting' | 'died';

const LOST: Partial<Record<Kernel.Status, Lost>> = {
  restarting: 'restarting',
  autorestarting: 'died',
  dead: 'died'
};

/** The part of a notebook panel that is used here. */
export interface INotebook {
  readonly title: string;
  readonly path: string;
  /** Bring the notebook to the front. */
  reveal(): void;
}

export interface IConnectedNotebook {
  /** Composed of the ids of the kernel connection and of the comm. */
  id: string;
  notebook: INotebook;
  /** Null before the kernel's first message, and after the kernel was lost. */
  session: ISession | null;
  /** Set while the kernel restarts or after it died. */
  lost: Lost | null;
  /** Interrupt the kernel. */
  stop(): Promise<void>;
}

/** The session in a comm message's data, if any. */
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
    return [...this._byId.values()];
  }

  get isBusy(): boolean {
    return this.all.some(each => each.session?.busy);
  }

  get isDisposed(): boolean {
    return this._isDisposed;
  }

  isConnected(path: string): boolean {
    return this.all.some(
      each => each.notebook.path === path && each.lost === null
    );
  }

  /** Follow a notebook's kernel; call the result when the notebook is closed or changes its kernel. */
  follow(notebook: INotebook, kernel: Kernel.IKernelConnection): () => void {
    const mine = new Set<string>(); // its comms
    let left = false;
    const idOf = (comm: string) => `${kernel.clientId}/${comm}`;
    const set = (
      comm: string,
      session: ISession | null,
      lost: Lost | null = null
    ) => {
      mine.add(comm);
      const id = idOf(comm);
      const stop = () => kernel.interrupt();
      this._byId.set(id, { id, notebook, session, lost, stop });
      this._changed.emit();
    };
    const forget = (comms: readonly string[]) => {
      const known = comms.filter(comm => mine.delete(comm));
      known.forEach(comm => this._byId.delete(idOf(comm)));
      if (known.length) {
        this._changed.emit();
      }
    };

    // JupyterLab closes a comm whose target is not registered.
    const accept = () => undefined;
    kernel.registerCommTarget(TARGET, accept);

    // After a reload, the kernel keeps using a comm that this page does not know.
    const adopt = (comm: string): Kernel.IComm | null =>
      kernel.handleComms && !kernel.isDisposed && !kernel.hasComm(comm)
        ? kernel.createComm(TARGET, comm)
        : null;

    // This signal is emitted before JupyterLab looks for a message's comm.
    const heard = (_: unknown, { msg, direction }: Kernel.IAnyMessageArgs) => {
      if (direction !== 'recv') {
        return;
      }
      const type = msg.header.msg_type;
      if (type === 'comm_open' || type === 'comm_msg') {
        const { comm_id, data } = (msg as KernelMessage.ICommMsgMsg).content;
        const session = sessionOf(data);
        if (session) {
          forget(lostOnes());
          if (type === 'comm_msg') {
            adopt(comm_id);
          }
          set(comm_id, session);
        }
      } else if (type === 'comm_close') {
        forget([(msg as KernelMessage.ICommCloseMsg).content.comm_id]);
      }
    };
    const lostOnes = (why?: Lost) =>
      [...mine].filter(comm => {
        const lost = this._byId.get(idOf(comm))?.lost;
        return lost && lost === (why ?? lost);
      });
    // A restarted kernel starts over; one that died stays listed, with a warning.
    const state = (_: unknown, status: Kernel.Status) => {
      const lost = LOST[status];
      if (lost) {
        mine.forEach(comm => set(comm, null, lost));
      } else {
        forget(status === 'terminating' ? [...mine] : lostOnes('restarting'));
      }
    };
    kernel.anyMessage.connect(heard);
    kernel.statusChanged.connect(state);
    void kernel
      .requestCommInfo({ target_name: TARGET })
      .then(({ content }) => {
        if (content.status !== 'ok' || left) {
          return;
        }
        for (const comm of Object.keys(content.comms)) {
          if (!mine.has(comm)) {
            set(comm, null);
          }
          adopt(comm)?.send({}); // the kernel answers any message with its session
        }
      })
      .catch(() => undefined); // the kernel died, which its status reports

    return () => {
      left = true;
      kernel.anyMessage.disconnect(heard);
      kernel.statusChanged.disconnect(state);
      if (!kernel.isDisposed) {
        kernel.removeCommTarget(TARGET, accept);
      }
      forget([...mine]);
    };
  }

  dispose(): void {
    if (!this._isDisposed) {
      this._isDisposed = true;
      this._byId.clear();
      Signal.clearData(this);
    }
  }

  private _isDisposed = false;
  private _byId = new Map<string, IConnectedNotebook>();
  private _changed = new Signal<this, void>(this);
}

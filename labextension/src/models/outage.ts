/**
 * An outage as the kernels tell it: they send their requests again and again
 * while the server is away.
 */
import type { TranslationBundle } from '@jupyterlab/translation';

import type { IFacility, ISession } from '../api';
import type { IEmptyState } from './empty';
import { clip, hostOf } from './format';
import type { IConnectedNotebook } from './sessions';

/** "server gone, retrying, 87 s left"; null while there is no outage. */
export function retryingOf(
  session: Partial<ISession> | null,
  trans: TranslationBundle
): string | null {
  const retrying = session?.retrying;
  return retrying
    ? trans.__(
        '%1, retrying, %2 s left',
        clip(retrying.reason, 60),
        Math.round(retrying.left)
      )
    : null;
}

/** The same with the notebook's name, for the first that retries. */
export function outageOf(
  notebooks: readonly IConnectedNotebook[],
  trans: TranslationBundle
): string | null {
  for (const { notebook, session } of notebooks) {
    const retrying = retryingOf(session, trans);
    if (retrying !== null) {
      return trans.__('%1: %2', clip(notebook.title, 60), retrying);
    }
  }
  return null;
}

/**
 * The empty state, unless a notebook knows better: its server is away, or it
 * is one that nothing in this environment names.
 */
export function knownToNotebooks(
  empty: IEmptyState | null,
  facility: IFacility | null,
  notebooks: readonly IConnectedNotebook[],
  trans: TranslationBundle
): IEmptyState | null {
  const outage = outageOf(notebooks, trans);
  if (empty && outage !== null) {
    return {
      title: trans.__('Triton does not answer'),
      text: outage,
      help: empty.help.filter(each => each !== 'connect')
    };
  }
  const connected = notebooks.find(each => each.session?.endpoint);
  if (empty && connected && facility?.state === 'no-facility') {
    return {
      title: trans.__('Nothing is known of this Triton'),
      text: trans.__(
        '%1 is connected to %2. This panel shows the load of a server that the environment names, and finds none.',
        clip(connected.notebook.title, 60),
        hostOf(connected.session?.endpoint ?? '')
      ),
      help: empty.help.filter(each => each !== 'connect')
    };
  }
  return empty;
}

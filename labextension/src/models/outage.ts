/**
 * An outage as the kernels tell it: they send their requests again and again
 * while the server is away.
 */
import type { TranslationBundle } from '@jupyterlab/translation';

import type { ApiError, IFacility, ISession } from '../api';
import { IEmptyState, emptyState, foundByNotebooks } from './empty';
import { clip } from './format';
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
 * The empty state, with what the notebooks know: while one waits for its
 * server there is one, and it is away.
 */
export function emptyStateOf(
  facility: IFacility | null,
  failure: ApiError | null,
  notebooks: readonly IConnectedNotebook[],
  trans: TranslationBundle
): IEmptyState | null {
  const empty = emptyState(facility, failure, trans);
  const outage = outageOf(notebooks, trans);
  if (empty && outage !== null) {
    return {
      title: trans.__('Triton does not answer'),
      text: outage,
      help: empty.help.filter(each => each !== 'connect')
    };
  }
  return foundByNotebooks(empty, facility, notebooks, trans);
}
